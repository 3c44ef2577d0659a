"""Rewritings of the steps of a plan that leave every output as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Final

import numpy as np

from sparsec.engine.steps import Affine, Item, Planes, Pool, Step, Window, multiplying, reads_of
from sparsec.kernels.library import POOLS

Sizes = dict[str, Planes]

PADDED: Final = frozenset({"windows", "depthwise", "max_pool"})
"""The kernels into whose window zeros around the input can be taken."""

AFFINE: Final = ("multiply", "add", "clamp")
"""What products and maps can do to their input, in this order."""

POOLED: Final = frozenset({"sliding", "winograd"})
"""The kernels that can give pools of their output instead of it, and are faster so."""

PAIRS: Final = Window((2, 2), (2, 2))
"""The windows of these pools."""


def rewrite(items: Sequence[Item], planes: Sizes, outputs: Collection[str]) -> list[Item]:
    """All rewritings.

    Args:
        items: of the plan, in order.
        planes: the sizes of all values; those of new values are added.
        outputs: the values that leave the plan.
    """
    padded = _fold_padding(items, planes, outputs)
    sampled = _push_samples(_sample(padded, planes), planes, outputs)
    return _fold_affines(_fold_gates(sampled, planes, outputs), planes, outputs)


def _readers(items: Iterable[Item]) -> Counter[str]:
    """How many items read each value."""
    found: Counter[str] = Counter()
    for item in items:
        found.update(reads_of(item))
    return found


def _fold_padding(items: Sequence[Item], planes: Sizes, outputs: Collection[str]) -> list[Item]:
    """Zeros around an input become padding of the only step that reads it.

    A maximum does not count what lies outside, so there it has to be known that nothing inside is below zero.
    """
    readers = _readers(items)
    makers = {item.y: item for item in items}
    result: list[Item] = []
    folded: dict[str, Step] = {}
    for item in items:
        if isinstance(item, Step) and _only_pads(item) and readers[item.y] == 1 and item.y not in outputs:
            folded[item.y] = item
            result.append(item)
            continue
        pad = folded.get(item.x) if isinstance(item, Step) and item.kernel in PADDED else None
        if isinstance(item, Step) and pad is not None and (item.kernel != "max_pool" or _is_positive(makers.get(pad.x))):
            result.remove(pad)
            before = item.window.pads
            pads = (before[0] + pad.window.pads[0], before[1] + pad.window.pads[1])
            item.x, item.window = pad.x, replace(item.window, pads=pads)
            item.nodes += pad.nodes
        result.append(item)
    return result


def _only_pads(step: Step) -> bool:
    plain = not step.posts and not step.clamps and step.window.strides == (1, 1)
    return step.kernel == "map" and plain and bool(step.nodes) and step.nodes[0].op == "pad"


def _is_positive(maker: Item | None) -> bool:
    return isinstance(maker, Step) and maker.low >= 0.0 and not maker.posts


def _is_sampling(item: Item) -> bool:
    """Whether a step is a convolution that meets single positions, but not all."""
    if not isinstance(item, Step) or item.kernel != "windows":
        return False
    return item.window.size == (1, 1) and item.window.pads == (0, 0) and item.window.strides != (1, 1)


def _sample(items: Sequence[Item], planes: Sizes) -> list[Item]:
    """Convolutions of single positions with strides: the positions are picked first, once for all that pick the same."""
    result: list[Item] = []
    picked: dict[tuple[str, tuple[int, int]], str] = {}
    for item in items:
        if isinstance(item, Step) and _is_sampling(item):
            item.x = _picked(item.x, item.window, planes[item.y], planes, result, picked)
            item.window = Window()
            item.kernel = multiplying(planes[item.y])
        result.append(item)
    return result


def _picked(
    value: str, window: Window, like: Planes, planes: Sizes, into: list[Item], picked: dict[tuple[str, tuple[int, int]], str]
) -> str:
    """The name of the positions of a value that a window with strides meets, picked by a new step where there is none yet."""
    key = (value, window.strides)
    if key not in picked:
        name = f"{value}.every{'x'.join(map(str, window.strides))}"
        planes[name] = replace(like, channels=planes[value].channels)
        into.append(Step("map", value, name, window=Window(strides=window.strides)))
        picked[key] = name
    return picked[key]


def _push_samples(items: Sequence[Item], planes: Sizes, outputs: Collection[str]) -> list[Item]:
    """Where nothing but a pick reads a product, it is computed at the picked positions alone."""
    result = list(items)
    for pick in [item for item in items if isinstance(item, Step) and item.kernel == "map" and not item.nodes]:
        if pick.window.strides == (1, 1):
            continue
        maker = next((item for item in result if item.y == pick.x), None)
        if not isinstance(maker, Step) or maker.kernel != "product" or pick.x in outputs:
            continue
        if _readers(result)[pick.x] != 1 or any(planes[value] != planes[maker.y] for value in _operands(maker)):
            continue
        at = result.index(maker)
        sampled: dict[tuple[str, tuple[int, int]], str] = {}
        new: list[Item] = []
        maker.x = _picked(maker.x, pick.window, planes[pick.y], planes, new, sampled)
        if maker.residual:
            maker.residual = _picked(maker.residual, pick.window, planes[pick.y], planes, new, sampled)
        maker.posts = [
            replace(post, value=_picked(post.value, pick.window, planes[pick.y], planes, new, sampled) if post.value else "")
            for post in maker.posts
        ]
        maker.y, maker.kernel = pick.y, multiplying(planes[pick.y])
        result[at:at] = new
        result.remove(pick)
    return result


def _operands(step: Step) -> list[str]:
    return [value for value in (step.residual, *(post.value for post in step.posts)) if value]


def _fold_gates(items: Sequence[Item], planes: Sizes, outputs: Collection[str]) -> list[Item]:
    """Where only a product reads the channels of one sample after each was multiplied by a number, it does that itself."""
    readers = _readers(items)
    gated = {
        item.y: item
        for item in items
        if isinstance(item, Step) and _only_gates(item, planes) and readers[item.y] == 1 and item.y not in outputs
    }
    result = list(items)
    for item in items:
        if isinstance(item, Step) and item.kernel == "product" and item.x in gated:
            gate = gated[item.x]
            item.x, item.gate = gate.x, gate.posts[0].value
            item.nodes += gate.nodes
            result.remove(gate)
    return result


def _only_gates(step: Step, planes: Sizes) -> bool:
    if step.kernel != "map" or step.clamps or not step.window.is_point or planes[step.x] != planes[step.y]:
        return False
    functions = [post.function for post in step.posts]
    return functions == ["multiply"] and planes.get(step.posts[0].value) == Planes(1, 1, 1, planes[step.x].channels)


def _fold_affines(items: Sequence[Item], planes: Sizes, outputs: Collection[str]) -> list[Item]:
    """What only scales, shifts and clamps channels goes over them once, or not at all where only products read the result."""
    readers = _readers(items)
    result = list(items)
    for step in [item for item in items if isinstance(item, Step)]:
        affine = _affine(step, planes)
        if affine is None:
            continue
        products = [item for item in items if isinstance(item, Step) and item.kernel == "product" and item.x == step.y]
        alone = step.y not in outputs and 0 < len(products) == readers[step.y]
        if not alone or any(item.gate for item in products):
            step.before, step.posts, step.low, step.high = affine, [], -inf, inf
            continue
        for item in products:
            item.x, item.before = step.x, affine
            item.nodes += step.nodes
        result.remove(step)
    return result


def _affine(step: Step, planes: Sizes) -> Affine | None:
    """What a step does to the channels of its input, where it is no more than that."""
    functions = [post.function for post in step.posts]
    plain = (
        step.kernel == "map" and step.window.is_point and planes[step.x] == planes[step.y] and not (step.clamps and functions)
    )
    if (
        not plain
        or planes[step.y].positions == 1
        or functions != [name for name in AFFINE if name in functions]
        or any(post.value for post in step.posts)
    ):
        return None
    operands = {post.function: np.float32(post.a) if post.channel is None else post.channel for post in step.posts}
    bounds = next(((post.a, post.b) for post in step.posts if post.function == "clamp"), (step.low, step.high))
    ones = np.ones(planes[step.y].channels, np.float32)
    return Affine(ones * operands.get("multiply", np.float32(1)), ones * operands.get("add", np.float32(0)), *bounds)


def join_pools(items: Sequence[Item], planes: Mapping[str, Planes], kernels: Mapping[str, str]) -> list[Item]:
    """Pools of two rows and two columns join the convolution that nothing else reads.

    Args:
        items: of the plan, in order; convolutions that a pool joins are changed.
        planes: the sizes of all values.
        kernels: by the output of a step that multiplies with a weight, the kernel that was chosen.
    """
    readers = _readers(items)
    makers = {item.y: item for item in items if isinstance(item, Step)}
    result = list(items)
    for item in items:
        maker = makers.get(item.x) if isinstance(item, Step) and _pools_pairs(item, planes) else None
        if maker is not None and readers[maker.y] == 1 and kernels.get(maker.y) in POOLED and not _operands(maker):
            assert isinstance(item, Step)
            maker.pool = Pool(item.kernel, item.y)
            maker.nodes += item.nodes
            result.remove(item)
    return result


def _pools_pairs(step: Step, planes: Mapping[str, Planes]) -> bool:
    """Whether a step does nothing but compute pools of two rows and two columns, all inside."""
    if step.kernel not in POOLS or step.window != PAIRS or step.posts or step.clamps:
        return False
    x, y = planes[step.x], planes[step.y]
    return 2 * y.height <= x.height and 2 * y.width <= x.width
