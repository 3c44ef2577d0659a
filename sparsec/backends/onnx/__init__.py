"""The ONNX backend: a graph as a file of standard operators; ``formats/onnx.md`` has the conventions."""

from sparsec.backends.onnx.export import LAYOUT_KEY, LAYOUTS, OPSETS, OnnxSummary, export_onnx, make_draft, to_model
from sparsec.backends.onnx.storage import SparseWeight

__all__ = ["LAYOUTS", "LAYOUT_KEY", "OPSETS", "OnnxSummary", "SparseWeight", "export_onnx", "make_draft", "to_model"]
