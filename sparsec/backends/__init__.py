"""Writers of compiled models: which file suffix stands for which format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparsec.bundle import BundleMeta, write_bundle
from sparsec.errors import InputError
from sparsec.extras import require
from sparsec.files import check_output
from sparsec.program import Program

__all__ = ["BACKENDS", "Backend", "OnnxOptions", "Product", "backend_of", "check_target"]


@dataclass(frozen=True)
class OnnxOptions:
    """How an ONNX file is written; see :func:`sparsec.backends.onnx.export_onnx`.

    Attributes:
        weights: ``auto``, ``dense`` or ``sparse``.
        opset: the version of the standard operator set.
        layout: ``nhwc`` or ``nchw``.
    """

    weights: str = "auto"
    opset: int = 17
    layout: str = "nhwc"

    def check(self) -> None:
        """Check the options before any work is done.

        Raises:
            InputError: one is out of range.
        """
        from sparsec.backends import onnx
        from sparsec.backends.onnx.storage import CHOICES

        for what, value, allowed in (("weights", self.weights, CHOICES), ("layout", self.layout, tuple(onnx.LAYOUTS))):
            if value not in allowed:
                raise InputError(f"ONNX {what} {value!r} are none of {', '.join(allowed)}")
        if self.opset not in onnx.OPSETS:
            raise InputError(
                f"ONNX operator set {self.opset} is not supported; choose one from {onnx.OPSETS[0]} to {onnx.OPSETS[-1]}"
            )


@dataclass(frozen=True)
class Product:
    """What a backend writes.

    Attributes:
        program: what the model computes.
        level: of a bundle.
        meta: what a bundle says beside the program.
        onnx: how an ONNX file is written.
    """

    program: Program
    level: str
    meta: BundleMeta
    onnx: OnnxOptions


@dataclass(frozen=True)
class Backend:
    """One format.

    Attributes:
        suffix: of its files.
        what: its name for messages.
        prepare: checks that it can write, before any work is done.
        write: writes a file, whole or not at all, and returns facts about it as JSON values, ``bytes`` among them.
    """

    suffix: str
    what: str
    prepare: Callable[[], None]
    write: Callable[[Path, Product], dict[str, Any]]


def _write_npz(path: Path, product: Product) -> dict[str, Any]:
    return {"bytes": write_bundle(path, product.program, level=product.level, meta=product.meta), "level": product.level}


def _prepare_onnx() -> None:
    require("onnx", extra="onnx", purpose="to write ONNX files")


def _write_onnx(path: Path, product: Product) -> dict[str, Any]:
    from sparsec.backends.onnx import export_onnx

    options = product.onnx
    summary = export_onnx(product.program.graph(), path, opset=options.opset, layout=options.layout, weights=options.weights)
    return asdict(summary)


BACKENDS: Mapping[str, Backend] = {
    backend.suffix: backend
    for backend in (
        Backend(".npz", "bundle", lambda: None, _write_npz),
        Backend(".onnx", "ONNX", _prepare_onnx, _write_onnx),
    )
}
"""Every backend by the suffix of its files."""


def backend_of(path: Path) -> Backend:
    """The backend that the suffix of ``path`` stands for.

    Raises:
        InputError: none has it.
    """
    suffix = path.suffix.lower()
    if suffix in BACKENDS:
        return BACKENDS[suffix]
    known = ", ".join(BACKENDS)
    if suffix in (".keras", ".h5", ".hdf5"):
        raise InputError(f"{path}: compiled models cannot be written back as Keras files yet; write {known}")
    raise InputError(f"{path}: the suffix {path.suffix!r} stands for no format that can be written; use one of {known}")


def check_target(path: Path) -> Backend:
    """The backend for ``path``, once it is certain that it can write there.

    Raises:
        InputError: the suffix is unknown, or the file cannot be written.
        MissingExtraError: what the backend needs is not installed.
    """
    backend = backend_of(path)
    check_output(path)
    backend.prepare()
    return backend
