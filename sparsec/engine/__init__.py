"""The native engine: what of a graph runs in the native library, one call for as much of it as can be."""

from sparsec.engine import attention, conv_lstm, convolutions, logic, recurrent
from sparsec.engine.run import Arenas, NativeSegment, RunOne
from sparsec.engine.segments import Division, Segment, divide

__all__ = [
    "Arenas",
    "Division",
    "NativeSegment",
    "RunOne",
    "Segment",
    "attention",
    "conv_lstm",
    "convolutions",
    "divide",
    "logic",
    "recurrent",
]
