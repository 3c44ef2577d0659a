"""The prepared plan: a program made ready for this machine and for one set of input shapes.

A plan is a list of steps over numbered slots. A step is a segment that runs in the native library; or a kernel together with
the bias and the elementwise operators that follow it; or an elementwise operator, which writes over a buffer that nobody needs
any more if there is one; or the reference evaluation of an operator. Slots are emptied after their last use. A plan does not
change and may run in several threads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from time import perf_counter_ns
from typing import Any

import numpy as np

from sparsec.engine import Arenas, Division, NativeSegment, RunOne, Segment, divide
from sparsec.engine.calibration import machine_of
from sparsec.engine.choice import Cheapest, Chooser
from sparsec.engine.plan import NativeStep
from sparsec.engine.trial import Stopwatch
from sparsec.engine.tuning import Fastest
from sparsec.ir import ABSENT, BATCH, Array, Attrs, Graph, Node, TensorType
from sparsec.kernels import (
    IN_PLACE,
    KERNEL_OPS,
    NATIVE,
    POINTWISE,
    RECURRENT_OPS,
    Choice,
    Epilogue,
    RecurrentTask,
    Stage,
    Task,
    WeightStore,
    bind_recurrent,
    choose,
    choose_recurrent,
    library,
)
from sparsec.ops import get_op, infer_types
from sparsec.ops.recurrent import Recurrent
from sparsec.ops.sequences import BIAS, KERNEL, MASK, RECURRENT_KERNEL
from sparsec.runtime.buffers import Buffers, Unit

Slots = list[Any]

Measure = Callable[[Slots, int], tuple[list[float], float]]


@dataclass(frozen=True)
class PlannedStep:
    """What a plan does for one node, for summaries.

    Attributes:
        node: the node's name.
        layer: the path of the layer that it comes from; empty where there is none.
        op: the operator.
        kernel: the kernel that runs it, ``in place`` for elementwise work on a buffer that is there, ``reference`` for the
            operator's own evaluation.
        reason: why that kernel; empty where there is no choice.
        fused: the operators applied in the same step, in order.
        microseconds: the cost model's estimate; ``None`` where it has none.
        measured: the microseconds that it took; ``None`` where that was not measured.
    """

    node: str
    layer: str
    op: str
    kernel: str
    reason: str = ""
    fused: tuple[str, ...] = ()
    microseconds: float | None = None
    measured: float | None = None


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        run: what it runs.
        frees: the slots that are empty afterwards.
        measure: where it is several in summaries, gives for the slots and a number of rounds the nanoseconds of each of these,
            and of what is in none.
    """

    run: Callable[[Slots], None]
    frees: tuple[int, ...]
    measure: Measure | None = None


@dataclass(frozen=True)
class Profile:
    """How long a plan takes.

    Attributes:
        steps: with measured times, those of native steps in one thread.
        between: the microseconds in which values are brought into the layout of the native library, and back.
    """

    steps: tuple[PlannedStep, ...]
    between: float


@dataclass(frozen=True)
class Plan:
    """A prepared plan.

    Attributes:
        slots: how many there are; the inputs stand in the first.
        steps: in order.
        outputs: for each output, its slot or its constant value, and whether it is copied before it is given out.
        described: the steps, for summaries.
        missing: packages that are not installed and would have made it faster.
        native: whether every step runs in the native library.
        direct: what gives the output for the input, where there is one of each, of float32, and one step, which is native.
    """

    slots: int
    steps: tuple[Step, ...]
    outputs: tuple[tuple[int | Array, bool], ...]
    described: tuple[PlannedStep, ...]
    missing: frozenset[str]
    native: bool = False
    direct: RunOne | None = None

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """The outputs for checked inputs."""
        slots: Slots = [*inputs, *([None] * (self.slots - len(inputs)))]
        with np.errstate(all="ignore"):
            for step in self.steps:
                step.run(slots)
                for slot in step.frees:
                    slots[slot] = None
        found = [slots[source] if isinstance(source, int) else source for source, _ in self.outputs]
        return tuple(y.copy() if copied else y for y, (_, copied) in zip(found, self.outputs, strict=True))

    def profile(self, inputs: Sequence[Array], rounds: int) -> Profile:
        """How long each step takes for checked inputs, in the median of some rounds."""
        times: list[list[float]] = [[] for _ in self.steps]
        native: dict[int, tuple[list[float], float]] = {}
        with np.errstate(all="ignore"):
            for turn in range(rounds):
                slots: Slots = [*inputs, *([None] * (self.slots - len(inputs)))]
                for index, step in enumerate(self.steps):
                    if step.measure is not None and turn == 0:
                        native[index] = step.measure(slots, rounds)
                    start = perf_counter_ns()
                    step.run(slots)
                    times[index].append(perf_counter_ns() - start)
                    for slot in step.frees:
                        slots[slot] = None
        measured: list[float] = []
        between = 0.0
        for index, of_step in enumerate(times):
            found, rest = native.get(index, ([float(np.median(of_step))], 0.0))
            measured += found
            between += rest
        steps = tuple(replace(step, measured=time / 1e3) for step, time in zip(self.described, measured, strict=True))
        return Profile(steps, between / 1e3)


@dataclass(frozen=True)
class _Site:
    """A unit of the plan that is being made, and what surrounds it."""

    index: int
    unit: Unit
    head: Node
    types: Mapping[str, TensorType]
    slots: Mapping[str, int]
    buffers: Buffers


class Planner:
    """Makes plans of one model.

    Args:
        graph: the model, with weights of the right types; their values are not read.
        store: the weights.
        threads: how many threads BLAS uses.
        native_threads: how many threads a native segment uses.
        tune: whether native kernels are chosen by measurement.
    """

    def __init__(self, graph: Graph, store: WeightStore, threads: int, native_threads: int, *, tune: bool = False) -> None:
        self._graph = graph
        self._store = store
        self._threads = threads
        self._symbolic = infer_types(graph)
        found = library.status().library
        self._arenas = None if found is None else Arenas(found, native_threads)
        self._chooser = None if found is None else _chooser(found, store, native_threads, tune)

    def plan(self, sizes: Mapping[str, int]) -> Plan:
        """The plan for given sizes of the model's symbols.

        Raises:
            GraphError: the model does not take inputs of these sizes.
        """
        types = infer_types(self._graph.bind(sizes))
        division = self._divide(types)
        units = self._group(division.items)
        buffers = Buffers(self._graph, units, self._store)
        slots = {entry.name: slot for slot, entry in enumerate(self._graph.inputs)}
        for unit in units:
            for value in unit.outputs:
                slots[value] = len(slots)
        steps, described, missing = [], [], set[str]()
        segments: list[NativeSegment] = []
        for index, unit in enumerate(units):
            if isinstance(unit.head, Segment):
                segments.append(self._native(unit.head, sizes))
                run, measure, descriptions = self._native_step(unit.head, segments[-1], slots)
                described += descriptions
            else:
                run, description, absent = self._step(_Site(index, unit, unit.head, types, slots, buffers))
                described.append(_with_refusal(description, division.refused))
                missing.update(absent)
                measure = None
            steps.append(Step(run, tuple(slots[value] for value in buffers.last_reads(index)), measure))
        outputs = tuple(
            (slots[port.value] if port.value in slots else self._store.array(port.value), shared)
            for port, shared in zip(self._graph.outputs, buffers.shared_outputs, strict=True)
        )
        if not library.status().built and any(self._is_sparse(node) for node in self._graph.nodes):
            missing.add(NATIVE)
        native = len(segments) == len(steps)
        single = native and len(steps) == len(outputs) == len(self._graph.inputs) == 1 and outputs[0][1] is False
        ends = [*(entry.name for entry in self._graph.inputs), *(port.value for port in self._graph.outputs)]
        direct = segments[0].shortest() if single and all(types[name].dtype == "float32" for name in ends) else None
        return Plan(len(slots), tuple(steps), outputs, tuple(described), frozenset(missing), native, direct)

    def _divide(self, types: Mapping[str, TensorType]) -> Division:
        if self._arenas is None:
            return Division(tuple(self._graph.nodes), {})
        return divide(self._graph, self._symbolic, types, self._store)

    # --- units ------------------------------------------------------------------------------------------------------

    def _group(self, items: Sequence[Segment | Node]) -> list[Unit]:
        consumers, kept = self._graph.consumers(), self._graph.output_values()
        native = {node.name for item in items if isinstance(item, Segment) for node in item.nodes}
        fused: set[str] = set()
        units = []
        for node in items:
            if isinstance(node, Segment):
                units.append(Unit(node, (), fresh=True))
                continue
            if node.name in fused:
                continue
            chain: list[Node] = []
            has_kernel = self._has_kernel(node)
            if has_kernel:
                value = node.output
                while value not in kept:
                    readers = consumers.get(value, [])
                    if len(readers) != 1 or readers[0].name in native or not self._can_follow(node, readers[0], value):
                        break
                    chain.append(readers[0])
                    value = readers[0].output
            fused.update(follower.name for follower in chain)
            units.append(Unit(node, tuple(chain), has_kernel or node.op in IN_PLACE or self._is_recurrent(node)))
        return units

    def _has_kernel(self, node: Node) -> bool:
        return node.op in KERNEL_OPS and all(name == ABSENT or name in self._store for name in node.inputs[1:])

    def _is_sparse(self, node: Node) -> bool:
        """Whether a node multiplies with a weight of which more is zero than not."""
        if node.op not in KERNEL_OPS or node.inputs[1] not in self._store:
            return False
        return 2 * self._store.nonzeros(node.inputs[1]) < self._store.weight(node.inputs[1]).size

    def _is_recurrent(self, node: Node) -> bool:
        """Whether a node is a recurrent operator whose weights are weights of the model."""
        if node.op not in RECURRENT_OPS:
            return False
        weights = (node.inputs[index] for index in (KERNEL, BIAS, RECURRENT_KERNEL))
        return all(name == ABSENT or name in self._store for name in weights)

    def _can_follow(self, head: Node, node: Node, value: str) -> bool:
        if node.op not in POINTWISE or node.inputs[0] != value:
            return False
        return all(name == ABSENT or self._is_vector(head, name) for name in node.inputs[1:])

    def _is_vector(self, head: Node, name: str) -> bool:
        """Whether a value is a weight that broadcasts over the output of ``head`` along its channels alone."""
        if name not in self._store:
            return False
        kernel, vector = self._store.weight(head.inputs[1]), self._store.weight(name)
        channels = prod(kernel.shape[axis] for axis in get_op(head.op).matrix_rows[1])
        flat = vector.size == (vector.shape[-1] if vector.shape else 1) and vector.size in (1, channels)
        return flat and len(vector.shape) <= len(kernel.shape)

    # --- steps ------------------------------------------------------------------------------------------------------

    def _native(self, segment: Segment, sizes: Mapping[str, int]) -> NativeSegment:
        assert self._arenas is not None
        assert self._chooser is not None

        def types_for(samples: int) -> Mapping[str, TensorType]:
            return infer_types(self._graph.bind({**sizes, BATCH: samples}))

        return NativeSegment(segment, types_for, sizes[BATCH], self._store, self._arenas, self._chooser)

    def _native_step(
        self, segment: Segment, native: NativeSegment, slots: Mapping[str, int]
    ) -> tuple[Callable[[Slots], None], Measure, list[PlannedStep]]:
        reads, writes = [slots[name] for name in segment.inputs], [slots[name] for name in segment.outputs]

        def run(values: Slots) -> None:
            for slot, value in zip(writes, native.run([values[slot] for slot in reads]), strict=True):
                values[slot] = value

        rows = _native_rows(native.steps)

        def measure(values: Slots, rounds: int) -> tuple[list[float], float]:
            times = native.profile([values[slot] for slot in reads], rounds)
            between = sum(time for found, time in zip(native.steps, times, strict=True) if not found.step.nodes)
            return [sum(times[index] for index in row) for row in rows], between

        return run, measure, [_native_row(native, row) for row in rows]

    def _step(self, site: _Site) -> tuple[Callable[[Slots], None], PlannedStep, tuple[str, ...]]:
        unit, node, slots = site.unit, site.head, site.slots
        if self._has_kernel(node):
            return self._kernel_step(site)
        if self._is_recurrent(node):
            return self._recurrent_step(site)
        arguments = self._arguments(node.inputs, slots)
        if unit.fresh:
            over = next((name for name in node.inputs if self._fits(name, node.output, site)), "")
            where = None if over == "" else slots[over]
            run = _elementwise(node, arguments, where, slots[node.output])
            return run, _described(site, "elementwise" if where is None else "in place"), ()
        return _reference(node, arguments, [slots[value] for value in node.outputs]), _described(site, "reference"), ()

    def _kernel_step(self, site: _Site) -> tuple[Callable[[Slots], None], PlannedStep, tuple[str, ...]]:
        unit, node, types = site.unit, site.head, site.types
        source, path = node.inputs[:2]
        y = types[node.output]
        task = self._task(node.op, node.attrs, _sizes(types[source]), _sizes(y), y.dtype, path)
        choice = choose(task)
        epilogue = Epilogue(self._constant(node, 2), tuple(self._stage(follower) for follower in unit.fused))
        bound = choice.kernel.bind(task, self._store.packed(path, choice.kernel.packing, node.attrs), epilogue)
        reads, writes = site.slots[source], site.slots[unit.outputs[0]]

        def run(values: Slots) -> None:
            values[writes] = bound(values[reads])

        return run, _described(site, choice.kernel.name, choice.reason, choice.cost / 1e3), choice.missing

    def _task(self, op: str, attrs: Attrs, x: tuple[int, ...], y: tuple[int, ...], dtype: str, path: str) -> Task:
        return Task(op, attrs, x, y, dtype, self._store.weight(path), self._store.nonzeros(path), self._threads)

    def _recurrent_step(self, site: _Site) -> tuple[Callable[[Slots], None], PlannedStep, tuple[str, ...]]:
        node, types, slots = site.head, site.types, site.slots
        op = get_op(node.op)
        assert isinstance(op, Recurrent)
        x, state = _sizes(types[node.inputs[0]]), _sizes(types[node.outputs[1]])
        dtype, width = types[node.inputs[0]].dtype, op.gates * state[-1]
        task = RecurrentTask(
            node.op,
            node.attrs,
            self._task("dense", {}, x, (*x[:-1], width), dtype, node.inputs[KERNEL]),
            self._task("dense", {}, state, (state[0], width), dtype, node.inputs[RECURRENT_KERNEL]),
            x[1],
        )
        choice = choose_recurrent(task)

        def pack(product: Task, chosen: Choice) -> Any:
            return self._store.packed(product.weight.path, chosen.kernel.packing, {})

        bound = bind_recurrent(task, choice, pack, self._constant(node, BIAS))
        absent = [ABSENT] * (MASK + 1 + len(op.state_names) - len(node.inputs))
        rest = self._arguments([*node.inputs[MASK:], *absent], slots)
        reads, writes = slots[node.inputs[0]], [slots[value] for value in node.outputs]

        def run(values: Slots) -> None:
            mask, *states = rest(values)
            for slot, value in zip(writes, bound(values[reads], mask, states), strict=True):
                values[slot] = value

        return run, _described(site, choice.name, choice.reason, choice.cost / 1e3), choice.missing

    def _stage(self, node: Node) -> Stage:
        vectors = [None if name == ABSENT else self._store.array(name).reshape(-1) for name in node.inputs[1:]]
        return Stage(node.op, IN_PLACE[node.op], node.attrs, tuple(vectors))

    def _constant(self, node: Node, position: int) -> Array | None:
        name = node.inputs[position] if position < len(node.inputs) else ABSENT
        return None if name == ABSENT else self._store.array(name)

    def _arguments(self, names: Sequence[str], slots: Mapping[str, int]) -> Callable[[Slots], list[Array | None]]:
        pairs = [(slots.get(name), self._store.array(name) if name in self._store else None) for name in names]
        return lambda values: [constant if slot is None else values[slot] for slot, constant in pairs]

    def _fits(self, value: str, output: str, site: _Site) -> bool:
        if value == ABSENT or value in self._store or site.types[value] != site.types[output]:
            return False
        return site.buffers.may_overwrite(value, site.index)


def _chooser(found: library.Library, store: WeightStore, threads: int, tune: bool) -> Chooser:
    cheapest = Cheapest(store, replace(machine_of(found), threads=threads))
    return Fastest(cheapest, Stopwatch(found, store)) if tune else cheapest


def _with_refusal(step: PlannedStep, refused: Mapping[str, str]) -> PlannedStep:
    """A step that does not run natively, with the reason."""
    if step.node not in refused:
        return step
    reasons = (f"not native: {refused[step.node]}", step.reason)
    return replace(step, reason="; ".join(filter(None, reasons)))


def _sizes(type_: TensorType) -> tuple[int, ...]:
    return tuple(int(str(dim)) for dim in type_.shape)


def _described(site: _Site, kernel: str, reason: str = "", microseconds: float | None = None) -> PlannedStep:
    fused = tuple(node.op for node in site.unit.fused)
    return PlannedStep(site.head.name, site.head.layer, site.head.op, kernel, reason, fused, microseconds)


def _native_rows(steps: Sequence[NativeStep]) -> list[list[int]]:
    """The native steps that are one in summaries: those of one node with the same kernel, such as one for each step in time."""
    rows: dict[tuple[str, ...], list[int]] = {}
    for index, found in enumerate(steps):
        if found.step.nodes:
            names = (node.name for node in found.step.nodes)
            rows.setdefault((_kernel(found), *names), []).append(index)
    return list(rows.values())


def _kernel(found: NativeStep) -> str:
    return f"native/{found.step.kernel if found.choice is None else found.choice.label}"


def _native_row(native: NativeSegment, row: Sequence[int]) -> PlannedStep:
    """What some steps do that are one in summaries."""
    first = native.steps[row[0]]
    node, *fused = first.step.nodes
    times = [found.choice.nanoseconds for found in (native.steps[index] for index in row) if found.choice is not None]
    microseconds = native.parts * sum(times) / 1e3 if times else None
    return PlannedStep(node.name, node.layer, node.op, _kernel(first), "", tuple(n.op for n in fused), microseconds)


def _elementwise(
    node: Node, arguments: Callable[[Slots], list[Array | None]], over: int | None, writes: int
) -> Callable[[Slots], None]:
    function, attrs = IN_PLACE[node.op], node.attrs

    def run(values: Slots) -> None:
        values[writes] = function(attrs, *arguments(values), out=None if over is None else values[over])

    return run


def _reference(node: Node, arguments: Callable[[Slots], list[Array | None]], writes: Sequence[int]) -> Callable[[Slots], None]:
    op, attrs = get_op(node.op), node.attrs

    def run(values: Slots) -> None:
        for slot, value in zip(writes, op.evaluate(attrs, arguments(values)), strict=True):
            values[slot] = value

    return run
