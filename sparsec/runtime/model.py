"""The model that users call."""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import BinaryIO, Final

import numpy as np

from sparsec.bundle import SelfCheck, read_bundle
from sparsec.engine import RunOne
from sparsec.errors import GraphError, InputError, VerificationError
from sparsec.ir import BATCH, Array, evaluate, symbols
from sparsec.kernels import NATIVE, WeightStore
from sparsec.ops import infer_types
from sparsec.program import Program
from sparsec.runtime.plan import Plan, PlannedStep, Planner, Profile
from sparsec.runtime.signature import Inputs, TensorInfo, arrange_inputs, bind_sizes, convert_inputs
from sparsec.runtime.threads import BLAS_THREADS, blas_threads

MAX_PLANS: Final = 8
"""The prepared plans that a model keeps, one for each set of input shapes; the one used longest ago goes first."""

FLOAT32: Final = np.dtype(np.float32)

Shapes = tuple[tuple[int, ...], ...]
"""The shapes of a model's inputs, in order."""

Outputs = Array | tuple[Array, ...] | dict[str, Array]


class Model:
    """A program that can be called, from several threads at once if need be.

    Plans are prepared at the first call with new input shapes, and kept; they share their packed weights.

    Args:
        program: what to run.
        threads: how many threads run a call; ``None`` is one, and leaves BLAS to the environment. What runs natively has
            threads of its own, as many for every call that overlaps with others, and gives the same results every time for a
            given number. For what runs in NumPy it is a limit on BLAS, which needs the package ``threadpoolctl`` and holds for
            the whole process while a call lasts; SciPy's sparse kernels run in the thread that calls.
        tune: choose native kernels by timing the candidates for this model, rather than by the cost model, when a plan is
            prepared; that takes about a second for a network of usual size, once for each set of input shapes.

    Attributes:
        name: the model's name.
        inputs: name, shape and dtype of each input, in order.
        outputs: name, shape and dtype of each output, in order.

    Raises:
        InputError: ``threads`` is not positive.
    """

    def __init__(self, program: Program, *, threads: int | None = None, tune: bool = False) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"{threads} threads are too few; give 1 or more, or leave that out for the default")
        if threads is not None and not BLAS_THREADS.supported:
            warnings.warn(
                "threads= does not limit BLAS, as threadpoolctl is not installed; install it with: pip install threadpoolctl",
                RuntimeWarning,
                stacklevel=2,
            )
        graph = program.skeleton()
        types = infer_types(graph)
        self.name = program.name
        self._names = tuple(entry.name for entry in graph.inputs)
        self._input_types = tuple(entry.type for entry in graph.inputs)
        self._output_types = tuple(types[port.value] for port in graph.outputs)
        self.inputs = tuple(TensorInfo.of(entry.name, entry.type) for entry in graph.inputs)
        self.outputs = tuple(
            TensorInfo.of(port.name, type_) for port, type_ in zip(graph.outputs, self._output_types, strict=True)
        )
        self._threads = threads
        self._store = WeightStore(program.tensors)
        self._planner = Planner(graph, self._store, blas_threads(threads), threads or 1, tune=tune)
        self._plans: OrderedDict[Shapes, Plan] = OrderedDict()
        self._direct: dict[tuple[int, ...], RunOne] = {}
        """By the shape of the only input, what gives the only output, where all is native: nothing else is left to do then."""
        self._reported: frozenset[str] = frozenset()
        self._lock = Lock()

    def __call__(self, x: Inputs, *, as_dict: bool = False, batch_size: int | None = None) -> Outputs:
        """Run the model.

        Args:
            x: one array, batch first, for a model with one input; else a list or tuple in the model's order, or a dict by name.
                Safe casts are made, and casts from wider floating-point dtypes to float32 and float16.
            as_dict: return a dict by output name.
            batch_size: run at most so many samples at a time, which bounds the memory.

        Returns:
            one array for a model with one output, else a tuple in the model's order; the arrays are the caller's to change.

        Raises:
            InputError: the inputs do not fit the model; the message names the input, what came and what was expected.
        """
        if type(x) is np.ndarray and batch_size is None:
            direct = self._direct.get(x.shape)
            if direct is not None and x.dtype is FLOAT32 and not as_dict:
                return direct(x)
        outputs = self.run(x, batch_size=batch_size)
        if as_dict:
            return {info.name: y for info, y in zip(self.outputs, outputs, strict=True)}
        return outputs[0] if len(outputs) == 1 else outputs

    def run(self, x: Inputs, *, batch_size: int | None = None) -> tuple[Array, ...]:
        """Run the model as a call does, and return a tuple of outputs however many there are.

        Args:
            x: as for a call.
            batch_size: as for a call.

        Raises:
            InputError: as for a call.
        """
        arrays = convert_inputs(arrange_inputs(x, self._names), self._names, self._input_types)
        return self._run(arrays) if batch_size is None else self._run_chunks(arrays, batch_size)

    def prepare(self, batch: int, sizes: Mapping[str, int] | None = None) -> None:
        """Prepare the plan for a batch size ahead of the first call.

        Args:
            batch: the number of samples.
            sizes: of the model's other symbols, by name.

        Raises:
            InputError: ``batch`` is not positive, a symbol has no size, or the model does not take inputs of these sizes.
        """
        self._prepared(self._all_sizes(batch, sizes))

    def plan(self, batch: int = 1, sizes: Mapping[str, int] | None = None) -> tuple[PlannedStep, ...]:
        """What the model does for a batch size, step by step: kernels and why they were chosen.

        Args:
            batch: the number of samples.
            sizes: of the model's other symbols, by name.

        Raises:
            InputError: as for :meth:`prepare`.
        """
        return self._prepared(self._all_sizes(batch, sizes)).described

    def profile(self, x: Inputs, rounds: int = 5) -> Profile:
        """How long each step takes for these inputs.

        Args:
            x: as for a call.
            rounds: how often it is measured; the median counts.

        Raises:
            InputError: as for a call, or the batch is empty.
        """
        arrays = convert_inputs(arrange_inputs(x, self._names), self._names, self._input_types)
        sizes = bind_sizes(arrays, self._names, self._input_types)
        if 0 in sizes.values():
            raise InputError("an empty batch cannot be measured; give at least one sample")
        with BLAS_THREADS.limited(self._threads):
            return self._prepared(sizes).profile(arrays, rounds)

    def summary(self, batch: int = 1, sizes: Mapping[str, int] | None = None) -> str:
        """Inputs, outputs, and the steps for a batch size with their kernels, as a table in plain text.

        Args:
            batch: the number of samples.
            sizes: of the model's other symbols, by name.

        Raises:
            InputError: as for :meth:`prepare`.
        """
        plan = self._prepared(self._all_sizes(batch, sizes))
        lines = [f"{self.name}: {len(plan.steps)} steps for batch {batch}, {self._store.nbytes} bytes of weights"]
        lines += [f"  input  {info}" for info in self.inputs] + [f"  output {info}" for info in self.outputs]
        if plan.missing:
            lines.append(f"  not installed, and would make it faster: {', '.join(sorted(plan.missing))}")
        width = max((len(step.node) for step in plan.described), default=0)
        for step in plan.described:
            kernel = " + ".join((step.kernel, *step.fused))
            lines.append(f"  {step.node:{width}}  {step.op:14}  {kernel}{step.reason and f' ({step.reason})'}")
        return "\n".join(lines)

    @property
    def weight_bytes(self) -> int:
        """The bytes of the weights as they are packed for the plans prepared so far."""
        return self._store.nbytes

    def _all_sizes(self, batch: int, sizes: Mapping[str, int] | None) -> dict[str, int]:
        if batch < 1:
            raise InputError(f"batch {batch} is not a number of samples; give 1 or more")
        known = {**(sizes or {}), BATCH: batch}
        wanted = frozenset(name for type_ in self._input_types for dim in type_.shape for name in symbols(dim))
        missing = sorted(wanted - known.keys())
        if missing:
            raise InputError(
                f"the sizes {', '.join(missing)} of the inputs {'; '.join(map(str, self.inputs))} are not known; a plan is"
                " prepared at the first call instead"
            )
        return {name: known[name] for name in wanted}

    def _prepared(self, sizes: Mapping[str, int]) -> Plan:
        shapes = tuple(tuple(evaluate(dim, sizes) for dim in type_.shape) for type_ in self._input_types)
        plan = self._kept(shapes)
        if plan is not None:
            return plan
        with self._lock:
            try:
                plan = self._planner.plan(sizes)
            except GraphError as error:
                given = ", ".join(f"{name} = {size}" for name, size in sorted(sizes.items()))
                raise InputError(f"the model does not take inputs with {given or 'these shapes'}: {error}") from None
            self._plans[shapes] = plan
            if plan.direct is not None and len(shapes) == 1:
                self._direct[shapes[0]] = plan.direct
            if len(self._plans) > MAX_PLANS:
                oldest, _ = self._plans.popitem(last=False)
                self._direct.pop(oldest[0], None)
            unknown = plan.missing - self._reported
            self._reported |= plan.missing
        if unknown:
            warnings.warn(_slower(unknown), RuntimeWarning, stacklevel=5)
        return plan

    def _kept(self, shapes: Shapes) -> Plan | None:
        with self._lock:
            plan = self._plans.get(shapes)
            if plan is not None:
                self._plans.move_to_end(shapes)
            return plan

    def _run(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        plan = self._kept(tuple(array.shape for array in arrays))
        if plan is None:
            sizes = bind_sizes(arrays, self._names, self._input_types)
            if sizes.get(BATCH) == 0:
                return self._empty(sizes)
            plan = self._prepared(sizes)
        if plan.native:
            return plan.run(arrays)
        with BLAS_THREADS.limited(self._threads):
            return plan.run(arrays)

    def _empty(self, sizes: Mapping[str, int]) -> tuple[Array, ...]:
        shapes = [tuple(evaluate(dim, sizes) for dim in type_.shape) for type_ in self._output_types]
        return tuple(np.empty(shape, type_.dtype) for shape, type_ in zip(shapes, self._output_types, strict=True))

    def _run_chunks(self, arrays: Sequence[Array], batch_size: int) -> tuple[Array, ...]:
        if batch_size < 1:
            raise InputError(f"batch_size {batch_size} is too small; give 1 or more")
        for info in (*self.inputs, *self.outputs):
            if info.shape[:1] != (BATCH,):
                raise InputError(f"batch_size= cannot be used, because axis 0 of {info} is not the batch")
        samples = bind_sizes(arrays, self._names, self._input_types)[BATCH]
        chunks = [
            self._run([array[first : first + batch_size] for array in arrays])
            for first in range(0, max(samples, 1), batch_size)
        ]
        return chunks[0] if len(chunks) == 1 else tuple(np.concatenate(parts) for parts in zip(*chunks, strict=True))


def load(
    source: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    threads: int | None = None,
    batch: int | None = None,
    check: bool = False,
    mmap: bool = False,
    tune: bool = False,
) -> Model:
    """Load a bundle.

    Args:
        source: a path, the bytes of a bundle, or a binary file.
        threads: how many threads run a call; see :class:`Model`.
        batch: prepare for this batch size now, rather than at the first call.
        check: run the self-check that the bundle carries.
        mmap: map the arrays of a ``stored`` bundle into memory instead of reading them: loading is faster, and weights that
            are used as they are stored stay in the file. Checksums are not verified then, and the file must not change while
            the model lives.
        tune: choose native kernels by measurement; see :class:`Model`.

    Raises:
        FormatError: it is not a bundle, is damaged, or breaks a limit.
        InputError: it cannot be opened, or an option does not fit the model.
        VerificationError: the self-check failed.
    """
    bundle = read_bundle(source, mmap=mmap)
    selfcheck = bundle.meta.selfcheck
    model = Model(bundle.program, threads=threads, tune=tune)
    # The program would keep the stored form of weights alive that are packed below.
    del bundle
    if check:
        _check(model, selfcheck)
    if batch is not None:
        model.prepare(batch)
    return model


def _slower(missing: frozenset[str]) -> str:
    """What is said of packages that are not there."""
    if NATIVE not in missing:
        return f"{', '.join(sorted(missing))} is not installed: sparse weights run as dense ones, slower"
    others = f" ({', '.join(sorted(missing - {NATIVE}))} is not installed either)" if len(missing) > 1 else ""
    return (
        "sparsec was installed without its native library, for want of a C compiler, or with that of another version: sparse"
        f" weights run on NumPy and SciPy, slower{others}"
    )


def _check(model: Model, selfcheck: SelfCheck | None) -> None:
    if selfcheck is None:
        raise InputError(f"the bundle of {model.name!r} carries no self-check; load it without check=True")
    result = selfcheck.compare(model.run(selfcheck.make_inputs()))
    if not result.passed:
        name = model.outputs[result.output].name
        raise VerificationError(
            f"the self-check of {model.name!r} failed: output {name!r} is off by {result.worst:.3g} of its scale, at most"
            f" {result.tolerance:.3g} was expected; the bundle is damaged or this machine computes wrongly"
        )
