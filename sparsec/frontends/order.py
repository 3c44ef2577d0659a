"""The order in which Keras 3 runs the layers of a functional model.

It matters where layers change what others see of their inputs: MultiHeadAttention takes the masks off them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


def execution_order(parents: Mapping[Key, Sequence[Key]], owners: Callable[[Key], str], ends: Sequence[Key]) -> list[Key]:
    """Calls of layers as Keras 3 runs them: the farthest from the outputs first, then as it comes to them from there.

    Args:
        parents: for each call, those that it reads, in order; what is not among its keys has none.
        owners: the layer of each call; all calls of a layer count as far from the outputs as the farthest.
        ends: the calls that the model's outputs come from, in order.
    """
    depths: dict[Key, int] = {}
    layers: dict[str, int] = {}
    for call in reversed(_from_ends(parents, ends)):
        depth = max(depths.get(call, 0), layers.get(owners(call), 0))
        depths[call] = layers[owners(call)] = depth
        for parent in parents.get(call, ()):
            depths[parent] = max(depth + 1, depths.get(parent, 0))
    return sorted((call for call in depths if call in parents), key=lambda call: -depths[call])


def _from_ends(parents: Mapping[Key, Sequence[Key]], ends: Sequence[Key]) -> list[Key]:
    """All calls that the ends need, each after those that it reads."""
    found: list[Key] = []
    seen: set[Key] = set()
    stack = [(end, False) for end in reversed(ends)]
    while stack:
        call, complete = stack.pop()
        if complete:
            found.append(call)
        elif call not in seen:
            seen.add(call)
            stack.append((call, True))
            stack += [(parent, False) for parent in reversed(parents.get(call, ()))]
    return found
