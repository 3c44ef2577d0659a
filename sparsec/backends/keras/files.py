"""Writing a smaller Keras file: the source with its configuration and weights edited, without Keras."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.backends.keras.edits import AddedBias, Edits, Interpreted, LayerEdit, parts_of, walk
from sparsec.backends.keras.fitting import Fitted, fit
from sparsec.backends.keras.hdf5 import H5Changes, rewrite_h5
from sparsec.backends.keras.optimizer import OptimizerEdit, edit_optimizer
from sparsec.errors import VerificationError
from sparsec.files import check_output, replacing
from sparsec.frontends import read
from sparsec.frontends.archive import check_same_kind, rewrite_archive
from sparsec.frontends.builder import GraphBuilder
from sparsec.frontends.files import CONFIG_MEMBER, WEIGHTS_MEMBER, open_source
from sparsec.frontends.hdf5 import H5Group, open_h5
from sparsec.frontends.model import read_model
from sparsec.frontends.source import LayerEntry, LayerPath, Source, Variable, is_wrapper_variable
from sparsec.frontends.tree import VARIABLES
from sparsec.ir import Array, Graph
from sparsec.passes.shrink.plan import ShrinkPlan

LEGACY_WEIGHTS = "/model_weights"
"""The group of a legacy file that holds the layers' weights."""

LEGACY_OPTIMIZER, TREE_OPTIMIZER = "/optimizer_weights", "/optimizer"

PRUNABLE = ("kernel", "pointwise_kernel")
"""The variables that the TensorFlow Model Optimization toolkit keeps masks for, as the graph calls them."""


@dataclass(frozen=True)
class WriteBack:
    """What was written.

    Attributes:
        bytes: the size of the file.
        layers: how many layers changed.
        optimizer: what became of the optimizer's state: ``none`` (there was none), ``kept``, ``sliced`` or ``dropped``.
        optimizer_reason: why it was dropped; empty otherwise.
        whole: the layers that keep all channels since Keras cannot state them with fewer, with the reasons.
    """

    bytes: int
    layers: int
    optimizer: str
    optimizer_reason: str
    whole: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The facts as a JSON object."""
        return asdict(self)


def write_keras(source: str | Path, plan: ShrinkPlan, out: str | Path) -> WriteBack:
    """Write a Keras file back with the channels gone that a plan removes.

    The configuration and the weights of the source are edited and the rest of the file is copied, so that names, dtype
    policies, regularisers, initialisers and the compile state survive. The state of the optimizer is sliced along where its
    variables map one to one to the model's, else it is left out, so that Keras starts with a fresh one. Pruning wrappers of
    the TensorFlow Model Optimization toolkit stay, with their masks sliced. What is written is read again and compared with
    the plan before it takes its place. Layers that Keras cannot state with fewer channels keep them, with all that is tied to
    them.

    Args:
        source: the ``.keras``, ``.h5`` or ``.hdf5`` file that the plan was made for.
        plan: made for the graph as :func:`sparsec.frontends.read` gives it without input shapes, so that it holds for all
            sizes.
        out: the file to write, of the same kind; may be ``source`` itself.

    Raises:
        InputError: a file cannot be read or written.
        FormatError: the file is damaged.
        UnsupportedLayerError: the model holds a layer that sparsec does not read.
        VerificationError: what was written does not hold what the plan says; nothing is left of it.
    """
    source, out = Path(source), Path(out)
    check_output(out)
    with replacing(out) as temporary, open_source(source) as opened:
        archive = zipfile.is_zipfile(source)
        check_same_kind(source, out, archive)
        model = interpret(opened)
        fitted = fit(model, plan)
        edits = fitted.edits
        rewrite = _Rewrite(fitted, model, archive)
        if not edits:
            shutil.copyfile(source, temporary)
        elif archive:
            rewrite_archive(source, temporary, {CONFIG_MEMBER: rewrite.config_member, WEIGHTS_MEMBER: rewrite.weights_member})
        else:
            rewrite.legacy_file(source, temporary)
        _verify(temporary, out, model, fitted.shrunk, edits)
        size = temporary.stat().st_size
        changed = sum(bool(parts_of(path, entry, edits)) for path, entry, _ in walk(opened.config, opened.description))
    return WriteBack(size, changed, rewrite.optimizer.outcome, rewrite.optimizer.reason, dict(fitted.kept))


def interpret(source: Source) -> Interpreted:
    """Read an open source, keeping what it was read from."""
    builder = GraphBuilder(source.saved_by, source.variables)
    graph = read_model(builder, source)
    # The parts of a layer, which files list by name, in the order in which the layer has them.
    places = {variable.location: index for index, variable in enumerate(builder.read.values())}
    ordered = sorted(source.variables.items(), key=lambda item: min(places.get(v.location, len(places)) for v in item[1]))
    return Interpreted(replace(source, variables=dict(ordered)), graph, builder.read, builder.views)


class _Rewrite:
    """The edits of one source, as changes of its files.

    Attributes:
        optimizer: what became of the optimizer's state; known once the weights are written.
    """

    def __init__(self, fitted: Fitted, model: Interpreted, archive: bool) -> None:
        self.optimizer = OptimizerEdit("kept", "", {})
        self._source = model.source
        self._edits = fitted.edits
        self._paths = {variable.location: path for path, variable in model.variables.items()}
        self._archive = archive
        self._config = fitted.config

    def config_member(self, file: Path) -> None:
        """Rewrite ``config.json``, unpacked."""
        file.write_text(self._serialized(file.read_bytes()), "utf-8")

    def weights_member(self, file: Path) -> None:
        """Rewrite ``model.weights.h5``, unpacked."""
        rewritten = file.with_name("rewritten")
        rewrite_h5(file, rewritten, self._changes(file), self._source.description)
        rewritten.replace(file)

    def legacy_file(self, source: Path, target: Path) -> None:
        """Write a changed copy of a legacy file."""
        changes = self._changes(source)
        changes.edit_attribute("/", "model_config", self._serialized)
        rewrite_h5(source, target, changes, self._source.description)

    def _serialized(self, text: str | bytes) -> str:
        serialized = json.loads(text)
        if isinstance(serialized["config"], list):
            serialized["config"] = self._config["layers"]
        else:
            serialized["config"] = self._config
        return json.dumps(serialized)

    def _changes(self, file: Path) -> H5Changes:
        changes = H5Changes()
        for path, edit in self._edits.items():
            for index, change in edit.variables.items():
                changes.datasets[self._source.variables[path][index].location] = change
            if edit.bias is not None:
                self._add_bias(changes, path, edit.bias)
        with open_h5(file, self._source.description) as root:
            self._change_optimizer(changes, root)
            for path, entry, _ in walk(self._source.config, self._source.description):
                if entry.wrapped and path in self._edits:
                    self._slice_masks(changes, root, path, entry, self._edits[path])
        return changes

    def _add_bias(self, changes: H5Changes, path: LayerPath, bias: AddedBias) -> None:
        variables = self._source.variables[path]
        kernel = variables[bias.kernel]
        group, _, name = kernel.location.rpartition("/")
        if self._archive:
            added = str(len(variables))
        else:
            # `kernel:0` in Keras 2, `kernel` in Keras 3.
            added = f"bias{name[name.index(':') :] if ':' in name else ''}"
            layer = f"{LEGACY_WEIGHTS}/{path[0]}"
            before, after = (f"{group}/{part}".removeprefix(f"{layer}/") for part in (name, added))
            changes.edit_attribute(layer, "weight_names", partial(_inserted, before, after))
        changes.added[f"{group}/{added}"] = bias.values.astype(kernel.load().dtype)

    def _change_optimizer(self, changes: H5Changes, root: H5Group) -> None:
        group = TREE_OPTIMIZER if self._archive else LEGACY_OPTIMIZER
        if not root.holds(group):
            self.optimizer = OptimizerEdit("none", "", {})
            return
        variables = _tree_slots(root.group(group)) if self._archive else _legacy_slots(root.group(group))
        if variables is None:
            self.optimizer = OptimizerEdit("dropped", "its state has parts of its own", {})
        else:
            self.optimizer = edit_optimizer([variable.shape for variable in variables], self._source, self._edits)
            for index, change in self.optimizer.slots.items():
                changes.datasets[variables[index].location] = change.sliced
        if self.optimizer.outcome == "dropped":
            changes.dropped.add(group)

    def _slice_masks(self, changes: H5Changes, root: H5Group, path: LayerPath, entry: LayerEntry, edit: LayerEdit) -> None:
        """Slice the mask, and the copy of the kernel, that a pruning wrapper keeps beside the layer."""
        for index, change in edit.variables.items():
            variable = self._source.variables[path][index]
            if self._paths.get(variable.location, "").rpartition("/")[2] not in PRUNABLE:
                continue
            for mask in self._wrapper_variables(root, path, entry, variable):
                if mask.shape == variable.shape:
                    changes.datasets[mask.location] = change.sliced

    def _wrapper_variables(self, root: H5Group, path: LayerPath, entry: LayerEntry, inner: Variable) -> list[Variable]:
        if self._archive:
            wrapper = root.group(inner.location.rpartition("/layer/")[0])
            return [wrapper.group(VARIABLES).variable(name) for name in wrapper.group(VARIABLES).names()]
        layer = root.group(f"{LEGACY_WEIGHTS}/{path[0]}")
        names = [name for name in layer.texts("weight_names") if is_wrapper_variable(name)]
        return [layer.variable(name) for name in names if f"/{name.rpartition('/')[0]}".endswith(f"/{entry.key}")]


def _tree_slots(group: H5Group) -> list[Variable] | None:
    """The variables of an optimizer in order; ``None`` if it has parts with variables of their own."""
    parts = group.groups()
    variables = parts.pop(VARIABLES, None)
    names = variables.names() if variables is not None else []
    if any(part.first_dataset() is not None for part in parts.values()) or not all(name.isdecimal() for name in names):
        return None
    return [variables.variable(name) for name in sorted(names, key=int)] if variables is not None else []


def _legacy_slots(group: H5Group) -> list[Variable]:
    return [group.variable(name) for name in group.texts("weight_names")]


def _inserted(before: str, added: str, names: Any) -> list[Any]:
    """The list of names with one more, right after the one it goes with; as it is where that one is not in it."""
    result: list[Any] = []
    for name in names:
        result.append(name)
        if (name.decode() if isinstance(name, bytes) else name) == before:
            result.append(added.encode() if isinstance(name, bytes) else added)
    return result


def _verify(file: Path, out: Path, model: Interpreted, shrunk: Graph, edits: Edits) -> None:
    """Check that a written file holds what it should, read from it as any other."""
    changes = {change.weight: change for edit in edits.values() for change in edit.variables.values()}
    written = read(file)
    found = written.graph.weights
    missing = {path for path in shrunk.weights if path not in model.graph.weights} ^ (
        written.variables.keys() - model.variables.keys()
    )
    wrong = sorted(missing | (model.variables.keys() - written.variables.keys()))
    stored = {path: variable.dtype for path, variable in written.variables.items()}
    for path, array in shrunk.weights.items():
        if path in changes and path in model.variables:
            array = changes[path].stated(array, model.variables[path].shape)
        if path in found and not _same(found[path], array, stored.get(path, "")):
            wrong.append(path)
    if wrong:
        raise VerificationError(
            f"{out}: what was written holds other weights than it should ({wrong[0]!r}), so nothing is kept of it; this is a "
            "defect of sparsec: please report it with the model"
        )


_ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
"""By which part of its magnitude a number moves at most when it is stored in half precision."""


def _same(found: Array, expected: Array, stored: str) -> bool:
    """Equal, up to rounding where the file stores another precision than the layer computes in."""
    if found.shape != expected.shape:
        return False
    rounding = _ROUNDING.get(stored, 1e-6)
    return bool(np.allclose(found, expected, rtol=0, atol=rounding * np.abs(expected).max(initial=0)))
