"""Pruning Keras files in place or into a copy, without Keras: only the numbers of the pruned variables change."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from sparsec.files import check_output, replacing
from sparsec.frontends import read
from sparsec.frontends.archive import check_same_kind, rewrite_archive
from sparsec.frontends.files import WEIGHTS_MEMBER
from sparsec.pruning.masks import Mask
from sparsec.pruning.plan import Options, layer_names, plan_pruning
from sparsec.pruning.report import PruneReport


def prune_file(
    path: str | Path,
    out: str | Path,
    *,
    method: str = "weight",
    sparsity: float,
    scope: str = "layer",
    skip: str | Iterable[str] = (),
    group: bool = True,
    whole: bool = False,
    progress: Callable[[str], None] | None = None,
) -> PruneReport:
    """Prune a Keras file by magnitude, without Keras.

    Everything but the zeros stays as it is: the configuration, the compile state, the optimizer's variables, names and dtypes.

    Args:
        path: a ``.keras``, ``.h5`` or ``.hdf5`` file.
        out: the file to write, of the same kind; may be ``path`` itself. It appears whole or not at all.
        method: ``weight`` zeroes the ``floor(sparsity * size)`` smallest weights of each kernel, ``unit`` the
            ``floor(sparsity * units)`` columns or filters of least L2 norm. The output layers, from which an output is reached
            without another kernel, are left alone.
        sparsity: from 0 up to, but not including, 1.
        scope: ``layer`` ranks within each kernel or group; ``global`` ranks over all of them, units by norm over the root of
            their number of weights, and leaves each kernel at least one unit.
        skip: names of layers or nested models, or patterns such as ``block1_*``, that are left alone.
        group: whether units of several layers that can only be removed together are ranked together: by the root of their
            summed squares, and counted once, so that of a group with n units in each layer ``floor(sparsity * n)`` go. A group
            with a layer that is not pruned is left alone.
        whole: whether biases, gamma and beta of pruned units are zeroed too.
        progress: called with the path of each kernel before it is ranked.

    Returns:
        what was done, layer by layer.

    Raises:
        InputError: an option is wrong, there is nothing to prune, or a file cannot be read or written.
        FormatError: the file is damaged.
        UnsupportedLayerError: the model holds a layer that sparsec does not read.
    """
    options = Options(method, sparsity, scope, layer_names(skip), group, whole)
    source, target = Path(path), Path(out)
    check_output(target)
    model = read(source)
    archive = zipfile.is_zipfile(source)
    check_same_kind(source, target, archive)
    plan = plan_pruning(model, options, progress)
    zeros = {model.variables[weight].location: model.as_stored(weight, mask) for weight, mask in plan.zeros.items()}
    del model  # its weights: they are rewritten one at a time
    with replacing(target) as temporary:
        if archive:
            rewrite_archive(source, temporary, {WEIGHTS_MEMBER: lambda weights: _rewrite_datasets(weights, zeros)})
        else:
            shutil.copyfile(source, temporary)
            _rewrite_datasets(temporary, zeros)
    return plan.report


def _rewrite_datasets(file: Path, zeros: Mapping[str, Mask]) -> None:
    """Zero parts of datasets of an HDF5 file, by their paths in it; all else stays.

    The front-end follows no links and reads no data that lies elsewhere, so nothing outside the file is written.
    """
    import h5py

    with h5py.File(file, "r+") as h5:
        for location, mask in zeros.items():
            dataset = h5[location]
            values = dataset[()]
            np.copyto(values, np.zeros((), values.dtype), where=mask)
            dataset[...] = values
