"""The exporters of all operators; importing this package fills :data:`sparsec.backends.onnx.registry.EXPORTERS`."""

from sparsec.backends.onnx.emit import attention, elementwise, linear, norm, pooling, recurrent, reductions, resize, shape

__all__ = ["attention", "elementwise", "linear", "norm", "pooling", "recurrent", "reductions", "resize", "shape"]
