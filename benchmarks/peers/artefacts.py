"""The files of a workload that the engines open; built when they are asked for first, and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import litert
import numpy as np
import onnx

import sparsec
from peers.workloads import CALIBRATION_SAMPLES, Workload
from sparsec.files import replacing
from sparsec.ir import Array
from sparsec.quiet import import_keras

FOLDER = Path(__file__).parents[2] / "build" / "peers" / "models"
ACTIVATIONS = ("QUInt8", "QInt8")
"""The types of 8-bit activations that are tried; weights are ``QInt8``, one scale for each output channel."""


@dataclass(frozen=True)
class Artefacts:
    """The files of one workload.

    Attributes:
        workload: which.
        folder: where they are kept.
    """

    workload: Workload
    folder: Path = field(default=FOLDER)

    def bundle(self, sparsity: float) -> Path:
        """The pruned model for sparsec."""
        return self._pruned(sparsity)[0]

    def stored_bundle(self, sparsity: float) -> Path:
        """The same in a form that can be mapped into memory."""
        target = self._path(f"{sparsity:g}-stored.npz")
        if not target.exists():
            self._prune(sparsity)
            sparsec.compile(self._model, verify=False, level="stored").save(target)
        return target

    def pruned_onnx(self, sparsity: float, batch: int) -> Path:
        """The pruned model in ONNX, with zeros among dense weights."""
        return self._fixed(self._pruned(sparsity)[1], batch)

    def dense_onnx(self, batch: int) -> Path:
        """The dense original in ONNX."""
        return self._fixed(self._dense(), batch)

    def int8_onnx(self, activations: str, batch: int) -> Path:
        """The dense original in ONNX with 8-bit weights and activations between quantising operators.

        Args:
            activations: one of :data:`ACTIVATIONS`.
            batch: the number of samples.
        """
        target = self._dense_path(f"int8-{activations}.onnx")
        if not target.exists():
            with replacing(target) as temporary:
                _quantise(self._dense(), temporary, activations, self.fed(CALIBRATION_SAMPLES))
        return self._fixed(target, batch)

    def litert(self, batch: int) -> Path:
        """The dense original for LiteRT."""
        target = self._dense_path(f"batch{batch}.tflite")
        if not target.exists():
            self._prune(0.0)
            converted = litert.convert(self._model, [self.workload.inputs(batch)])
            with replacing(target) as temporary:
                temporary.write_bytes(converted)
        return target

    def edges(self, shape: tuple[int, ...]) -> Path:
        """A bundle that does next to nothing with samples of a shape, so that what a call costs at its edges shows."""
        target = self._path(f"edges-{'x'.join(map(str, shape))}.npz")
        if not target.exists():
            keras = import_keras(purpose="to build networks")
            sparsec.compile(keras.Sequential([keras.Input(shape), keras.layers.ReLU()]), verify=False).save(target)
        return target

    def kernel(self, sparsity: float) -> Array:
        """The pruned kernel of a single layer as a matrix, a row for each output channel."""
        self._prune(sparsity)
        kernel = self._model.layers[-1].get_weights()[0]
        return np.ascontiguousarray(kernel.reshape(-1, kernel.shape[-1]).T)

    def fed(self, batch: int) -> Array:
        """Random inputs as the ONNX files take them: those of single layers have channels first."""
        x = self.workload.inputs(batch)
        return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if self._layout == "nchw" else x

    def as_fed(self, y: Array) -> Array:
        """An output of sparsec as the ONNX files give it."""
        return np.moveaxis(y, -1, 1) if self._layout == "nchw" else y

    @property
    def _layout(self) -> str:
        return "nchw" if self.workload.layer and len(self.workload.shape) > 1 else "nhwc"

    @cached_property
    def _model(self) -> Any:
        return self.workload.model()

    @cached_property
    def _weights(self) -> list[Array]:
        return list(self._model.get_weights())

    def _prune(self, sparsity: float) -> None:
        self._model.set_weights(self._weights)
        self.workload.prune(self._model, sparsity)

    def _path(self, name: str) -> Path:
        return self._in(self.workload.name, name)

    def _dense_path(self, name: str) -> Path:
        return self._in(self.workload.original, name)

    def _in(self, workload: str, name: str) -> Path:
        folder = self.folder / workload
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def _pruned(self, sparsity: float) -> tuple[Path, Path]:
        bundle, exported = self._path(f"{sparsity:g}.npz"), self._path(f"{sparsity:g}.onnx")
        if not (bundle.exists() and exported.exists()):
            self._prune(sparsity)
            compiled = sparsec.compile(self._model, verify=False, onnx_weights="dense", onnx_layout=self._layout)
            compiled.save(bundle)
            compiled.save(exported)
        return bundle, exported

    def _dense(self) -> Path:
        target = self._dense_path("dense.onnx")
        if not target.exists():
            self._prune(0.0)
            options: Mapping[str, Any] = {"shrink": False, "verify": False, "onnx_weights": "dense"}
            sparsec.compile(self._model, onnx_layout=self._layout, **options).save(target)
        return target

    def _fixed(self, source: Path, batch: int) -> Path:
        """The file for one batch size: engines plan better for sizes that they know."""
        target = source.with_name(f"{source.stem}-batch{batch}.onnx")
        if not target.exists():
            model = onnx.load(source)
            for value in (*model.graph.input, *model.graph.output):
                value.type.tensor_type.shape.dim[0].dim_value = batch
            del model.graph.value_info[:]
            with replacing(target) as temporary:
                onnx.save(model, temporary)
        return target


def _quantise(source: Path, target: Path, activations: str, samples: Array) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            name = onnx.load(source, load_external_data=False).graph.input[0].name
            self._left = iter([{name: samples[index : index + 1]} for index in range(len(samples))])

        def get_next(self) -> dict[str, Array] | None:
            return next(self._left, None)

    prepared = target.with_name(f"prepared-{target.name}")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(target),
        Samples(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType[activations],
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()
