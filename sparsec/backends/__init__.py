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
from sparsec.frontends import SUFFIXES
from sparsec.frontends.files import file_sha256
from sparsec.passes import ShrinkPlan
from sparsec.program import Program

__all__ = ["BACKENDS", "Backend", "KerasOrigin", "OnnxOptions", "Product", "backend_of", "check_target"]


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
class KerasOrigin:
    """The Keras file that a product was made from, which writing back edits.

    Attributes:
        path: of the file; ``None`` for a model in memory.
        sha256: of the file when it was read.
        plan: what shrinking did; ``None`` where it holds for given input sizes only.
    """

    path: Path | None
    sha256: str | None
    plan: ShrinkPlan | None


@dataclass(frozen=True)
class Product:
    """What a backend writes.

    Attributes:
        program: what the model computes.
        level: of a bundle.
        meta: what a bundle says beside the program.
        onnx: how an ONNX file is written.
        origin: what a Keras file is written from.
    """

    program: Program
    level: str
    meta: BundleMeta
    onnx: OnnxOptions
    origin: KerasOrigin


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


def _write_keras(path: Path, product: Product) -> dict[str, Any]:
    from sparsec.backends.keras import write_keras

    origin = product.origin
    if origin.path is None:
        raise InputError(f"{path}: a model in memory is not written back to a file; shrink it with sparsec.shrink(model)")
    if origin.plan is None:
        raise InputError(
            f"{path}: what was removed holds for the given input shape only; compile without --input-shape to write back"
        )
    if file_sha256(origin.path) != origin.sha256:
        raise InputError(f"{origin.path} has changed since it was read; compile it again")
    return write_keras(origin.path, origin.plan, path).to_json()


BACKENDS: Mapping[str, Backend] = {
    backend.suffix: backend
    for backend in (
        Backend(".npz", "bundle", lambda: None, _write_npz),
        Backend(".onnx", "ONNX", _prepare_onnx, _write_onnx),
        *(Backend(suffix, "Keras", lambda: None, _write_keras) for suffix in SUFFIXES),
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
