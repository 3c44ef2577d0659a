"""The native engine: what of a graph runs in the native library, one call for as much of it as can be."""

from sparsec.engine import attention, convolutions, logic, recurrent
from sparsec.engine.run import Arenas, NativeSegment, RunOne
from sparsec.engine.segments import Division, Segment, divide

__all__ = [
    "Arenas",
    "Division",
    "NativeSegment",
    "RunOne",
    "Segment",
    "attention",
    "convolutions",
    "divide",
    "logic",
    "recurrent",
]
