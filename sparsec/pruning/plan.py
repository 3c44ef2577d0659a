"""Deciding what to zero: from a graph and the user's options to masks and a report. Nothing is changed here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparsec.errors import InputError
from sparsec.frontends import KerasModel
from sparsec.ir import Array, Graph
from sparsec.pruning.groups import Group, find_groups
from sparsec.pruning.kernels import Kernel, exempt_layers, find_kernels
from sparsec.pruning.masks import Mask, Scores, along_units, check_sparsity, pruned_count, smallest, weight_mask, weight_masks
from sparsec.pruning.report import LayerReport, PruneReport
from sparsec.pruning.whole import unit_parameters

METHODS = ("weight", "unit")
SCOPES = ("layer", "global")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How to prune.

    Attributes:
        method: ``weight`` or ``unit``.
        sparsity: from 0 up to, but not including, 1.
        scope: ``layer`` ranks within each kernel or group, ``global`` over all of them.
        skip: names or patterns of layers that are left alone.
        group: whether units that can only go together are ranked together.
        whole: whether the biases and the normalisation of pruned units are zeroed too.

    Raises:
        InputError: an option has no such value, or two contradict each other.
    """

    method: str
    sparsity: float
    scope: str = "layer"
    skip: tuple[str, ...] = ()
    group: bool = True
    whole: bool = False

    def __post_init__(self) -> None:
        for name, value, choices in (("method", self.method, METHODS), ("scope", self.scope, SCOPES)):
            if value not in choices:
                raise InputError(f"{name} {value!r} is none of {', '.join(choices)}")
        if self.whole and self.method != "unit":
            raise InputError("whole units are zeroed by unit pruning only; choose method 'unit'")
        object.__setattr__(self, "sparsity", check_sparsity(self.sparsity))


def layer_names(skip: str | Iterable[str]) -> tuple[str, ...]:
    """The names in ``skip``, which may be a single one."""
    return (skip,) if isinstance(skip, str) else tuple(skip)


@dataclass(frozen=True)
class Plan:
    """What pruning will do.

    Attributes:
        zeros: for each weight that changes, by path, where it becomes zero; broadcasts over the weight.
        report: the same, layer by layer.
    """

    zeros: Mapping[str, Mask]
    report: PruneReport


def plan_pruning(model: KerasModel, options: Options, progress: Progress | None = None) -> Plan:
    """Decide what to zero.

    Args:
        model: as its front-end read it.
        options: how to prune.
        progress: called with the path of each kernel before it is ranked.

    Raises:
        InputError: ``skip`` names no layer, or there is nothing to prune.
    """
    graph, source, begin = model.graph, model.description, progress or (lambda path: None)
    # Constants of the layers themselves, such as the matrices of a resampling, are no kernels.
    kernels = [kernel for kernel in find_kernels(graph) if kernel.path in model.variables]
    exempt = exempt_layers(graph, kernels, options.skip)
    by_groups = options.method == "unit" and options.group
    groups = find_groups(graph, kernels) if by_groups else [Group.alone(kernel) for kernel in kernels]
    kept = _kept(groups, exempt)
    pruned = [group for group in groups if group.name not in kept]
    if not pruned:
        reasons = ", ".join(f"{path}: {reason}" for path, reason in kept.items()) or "it has no kernels"
        raise InputError(f"{source} has no layer to prune ({reasons})")
    units: dict[str, Mask] = {}
    parameters: dict[str, Mask] = {}
    if options.method == "weight":
        zeros = _prune_weights(graph, [group.kernels[0] for group in pruned], options, begin)
    else:
        units = _prune_units(graph, pruned, options, begin)
        zeros = {k.path: along_units(units[k.path], k.shape, k.unit_axes) for k in kernels if k.path in units}
        parameters = unit_parameters(graph, units, model.variables.keys()) if options.whole else {}
    layers = _layers(graph, groups, kept, zeros, units)
    in_order = tuple(layers[kernel.path] for kernel in kernels)
    report = PruneReport(source, options.method, options.sparsity, options.scope, in_order, tuple(parameters))
    return Plan({**zeros, **parameters}, report)


def _kept(groups: Sequence[Group], exempt: Mapping[str, str]) -> dict[str, str]:
    """Why kernels are not pruned, by path: for their own sake, or for that of one in their group."""
    kept: dict[str, str] = {}
    for group in groups:
        reasons = {kernel.path: exempt[kernel.layer] for kernel in group.kernels if kernel.layer in exempt}
        for path, reason in list(reasons.items())[:1]:
            kept.update((kernel.path, f"tied to {path}, {reason}") for kernel in group.kernels)
        kept.update(reasons)
    return kept


def _prune_weights(graph: Graph, kernels: Sequence[Kernel], options: Options, begin: Progress) -> dict[str, Mask]:
    if options.scope == "global":
        for kernel in kernels:
            begin(kernel.path)
        masks = weight_masks([graph.weights[kernel.path] for kernel in kernels], options.sparsity)
        return {kernel.path: ~mask for kernel, mask in zip(kernels, masks, strict=True)}
    zeros: dict[str, Mask] = {}
    for kernel in kernels:
        begin(kernel.path)
        zeros[kernel.path] = ~weight_mask(graph.weights[kernel.path], options.sparsity)
    return zeros


def _prune_units(graph: Graph, groups: Sequence[Group], options: Options, begin: Progress) -> dict[str, Mask]:
    """Which units of each kernel go, by path."""
    energies: list[Scores] = []
    for group in groups:
        for kernel in group.kernels:
            begin(kernel.path)
        energies.append(group.energies(graph.weights))
    if options.scope == "global":
        marked = _smallest_of_all(groups, energies, options.sparsity)
    else:
        marked = [_smallest_of_each(group, energy, options.sparsity) for group, energy in zip(groups, energies, strict=True)]
    return {path: gone for group, mask in zip(groups, marked, strict=True) for path, gone in group.spread(mask).items()}


def _smallest_of_each(group: Group, energies: Scores, sparsity: float) -> Mask:
    """The units of least score: as many of each cell as its share, and the least of the rest up to the share of the group."""
    scores, marked = np.sqrt(energies), np.zeros(group.units, bool)
    for cell in range(int(group.cells.max()) + 1):
        _mark_smallest(scores, marked, group.cells == cell, pruned_count(sparsity, int((group.cells == cell).sum())))
    _mark_smallest(scores, marked, ~marked, pruned_count(sparsity, group.units) - int(marked.sum()))
    return marked


def _mark_smallest(scores: Scores, marked: Mask, among: Mask, count: int) -> None:
    units = np.flatnonzero(among)
    (gone,) = smallest([scores[units]], count)
    marked[units[gone]] = True


def _smallest_of_all(groups: Sequence[Group], energies: Sequence[Scores], sparsity: float) -> list[Mask]:
    """The units of least score over all groups, where the best unit of each group is never among them."""
    scores = [np.sqrt(energy / group.fan_in()) for group, energy in zip(groups, energies, strict=True)]
    for score in scores:
        score[np.argmax(score)] = np.inf
    units = sum(score.size for score in scores)
    return smallest(scores, min(pruned_count(sparsity, units), units - len(groups)))


def _layers(
    graph: Graph, groups: Sequence[Group], kept: Mapping[str, str], zeros: Mapping[str, Mask], units: Mapping[str, Mask]
) -> dict[str, LayerReport]:
    """What happens to each kernel, by path."""
    found: dict[str, LayerReport] = {}
    for group in groups:
        for kernel in group.kernels:
            array, gone = graph.weights[kernel.path], zeros.get(kernel.path)
            before = kernel.size - int(np.count_nonzero(array))
            found[kernel.path] = LayerReport(
                path=kernel.path,
                layer=kernel.layer,
                shape=kernel.shape,
                zeros_before=before,
                zeros_after=before if gone is None else before + _newly_zero(array, gone),
                units=kernel.units // kernel.gates,
                pruned_units=int(np.count_nonzero(units.get(kernel.path, ()))) // kernel.gates,
                group=group.name if len(group.kernels) > 1 else None,
                kept=kept.get(kernel.path, ""),
            )
    return found


def _newly_zero(array: Array, gone: Mask) -> int:
    return int(np.count_nonzero((array != 0) & gone))
