"""The exporters of all operators; importing this package fills :data:`sparsec.backends.onnx.registry.EXPORTERS`."""

from sparsec.backends.onnx.emit import elementwise, linear, norm, pooling, resize, shape

__all__ = ["elementwise", "linear", "norm", "pooling", "resize", "shape"]
