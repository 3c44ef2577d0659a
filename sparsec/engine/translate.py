"""From the nodes of a segment to the items of a native plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sparsec.engine.fusion import Fusion
from sparsec.engine.rewrites import rewrite
from sparsec.engine.rules import RULES, Site
from sparsec.engine.segments import Segment
from sparsec.engine.steps import Concat, Elementwise, Item, Made, Planes, Refusal, Step, View
from sparsec.ir import TensorType
from sparsec.kernels import WeightStore


@dataclass(frozen=True)
class Translation:
    """A segment as items over named values.

    Attributes:
        items: in order.
        planes: the sizes of all values.
        external: by name, the number of the memory in which a value of the caller lies; inputs first, from 1.
    """

    items: tuple[Item, ...]
    planes: Mapping[str, Planes]
    external: Mapping[str, int]


def translate(segment: Segment, types: Mapping[str, TensorType], store: WeightStore) -> Translation:
    """Translate a segment, for given types of its values."""
    planes = {name: Planes.of(types[name]) for name in segment.inputs}
    for node in segment.nodes:
        planes.update((name, Planes.of(types[name])) for name in node.outputs)
    readers = Counter(name for node in segment.nodes for name in node.inputs)
    readers.update(segment.outputs)
    fusion = Fusion(planes, readers)
    external: dict[str, int] = {}
    for number, name in enumerate(segment.inputs, start=1):
        if planes[name].positions == 1:
            external[name] = number
        else:
            source = f"{name}.given"
            planes[source] = planes[name]
            external[source] = number
            fusion.add([Step("load", source, name)])
    for node in segment.nodes:
        found = RULES[node.op](Site(node, types, store))
        assert not isinstance(found, Refusal)
        if isinstance(found, Elementwise):
            fusion.follow(node, found)
        elif isinstance(found, Made):
            planes.update(found.planes)
            fusion.add(found.items)
        else:
            fusion.add(found)
    items = rewrite(fusion.items, planes, segment.outputs)
    parts = {part for item in items if isinstance(item, Concat) for part in item.parts}
    views = {item.y for item in items if isinstance(item, View)}
    for number, name in enumerate(segment.outputs, start=len(segment.inputs) + 1):
        if planes[name].positions == 1 and name not in {*parts, *views, *external}:
            external[name] = number
        else:
            target = f"{name}.{number}"
            planes[target] = planes[name]
            external[target] = number
            items.append(Step("store", name, target))
    return Translation(tuple(items), planes, external)
