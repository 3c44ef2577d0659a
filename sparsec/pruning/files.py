"""Pruning Keras files in place or into a copy, without Keras: only the numbers of the pruned variables change."""

from __future__ import annotations

import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from pathlib import Path
from typing import IO

import numpy as np

from sparsec.errors import FormatError, InputError
from sparsec.files import check_output, replacing
from sparsec.frontends import read
from sparsec.frontends.files import WEIGHTS_MEMBER
from sparsec.pruning.masks import Mask
from sparsec.pruning.plan import Options, layer_names, plan_pruning
from sparsec.pruning.report import PruneReport

ARCHIVE_SUFFIXES, HDF5_SUFFIXES = (".keras",), (".h5", ".hdf5")

COPY_BYTES = 1 << 22


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
    _check_suffix(source, target, archive)
    plan = plan_pruning(model, options, progress)
    zeros = {model.variables[weight].location: mask for weight, mask in plan.zeros.items()}
    del model  # its weights: they are rewritten one at a time
    with replacing(target) as temporary:
        if archive:
            _rewrite_archive(source, temporary, zeros)
        else:
            shutil.copyfile(source, temporary)
            _rewrite_datasets(temporary, zeros)
    return plan.report


def _check_suffix(source: Path, target: Path, archive: bool) -> None:
    suffixes, kind = (ARCHIVE_SUFFIXES, "a Keras archive") if archive else (HDF5_SUFFIXES, "an HDF5 file")
    # A file that bears the suffix of the other kind, as Keras 2.12 wrote them, may keep it.
    if target.suffix.lower() not in (*suffixes, source.suffix.lower()):
        raise InputError(f"{source} is {kind}, so what is written must end in {' or '.join(suffixes)}, not {target.suffix!r}")


def _rewrite_datasets(file: Path, zeros: Mapping[str, Mask]) -> None:
    """Zero parts of datasets of an HDF5 file, by their paths in it; all else stays.

    The front-end follows no links and reads no data that lies elsewhere, so nothing outside the file is written.
    """
    import h5py

    with h5py.File(file, "r+") as h5:
        for location, mask in zeros.items():
            dataset = h5[location]
            values = dataset[()]
            np.copyto(values, 0, where=mask)
            dataset[...] = values


def _rewrite_archive(source: Path, target: Path, zeros: Mapping[str, Mask]) -> None:
    """Copy an archive member by member, with parts of the weights zeroed."""
    with (
        tempfile.TemporaryDirectory(prefix="sparsec-") as folder,
        zipfile.ZipFile(source) as archive,
        zipfile.ZipFile(target, "w") as result,
    ):
        weights = Path(folder) / WEIGHTS_MEMBER
        with weights.open("wb") as unpacked:
            _copy_member(archive, archive.getinfo(WEIGHTS_MEMBER), unpacked, source)
        _rewrite_datasets(weights, zeros)
        result.comment = archive.comment
        for info in archive.infolist():
            header = copy(info)
            header.extra = b""
            rewritten = info.filename == WEIGHTS_MEMBER
            header.file_size = weights.stat().st_size if rewritten else info.file_size
            with result.open(header, "w") as member:
                if rewritten:
                    with weights.open("rb") as unpacked:
                        shutil.copyfileobj(unpacked, member, COPY_BYTES)
                else:
                    _copy_member(archive, info, member, source)


def _copy_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: IO[bytes], source: Path) -> None:
    try:
        with archive.open(info) as member:
            shutil.copyfileobj(member, target, COPY_BYTES)
    except (zipfile.BadZipFile, EOFError, RuntimeError, zlib.error, lzma.LZMAError) as error:
        raise FormatError(f"{source}: {info.filename} cannot be unpacked ({error}); save the model again") from None
