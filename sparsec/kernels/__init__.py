"""Kernels: the ways to run an operator on this machine, in one table, and the choice among them by cost."""

from sparsec.kernels import library
from sparsec.kernels.base import Epilogue, Kernel, Run, Stage, Task
from sparsec.kernels.costs import MEASURED, Coefficients
from sparsec.kernels.elementwise import IN_PLACE, POINTWISE
from sparsec.kernels.library import NATIVE
from sparsec.kernels.recurrent import RECURRENT_OPS, RecurrentTask, bind_recurrent, choose_recurrent
from sparsec.kernels.table import KERNEL_OPS, KERNELS, Choice, choose
from sparsec.kernels.weights import TENSOR, Packing, Weight, WeightStore

__all__ = [
    "IN_PLACE",
    "KERNELS",
    "KERNEL_OPS",
    "MEASURED",
    "NATIVE",
    "POINTWISE",
    "RECURRENT_OPS",
    "TENSOR",
    "Choice",
    "Coefficients",
    "Epilogue",
    "Kernel",
    "Packing",
    "RecurrentTask",
    "Run",
    "Stage",
    "Task",
    "Weight",
    "WeightStore",
    "bind_recurrent",
    "choose",
    "choose_recurrent",
    "library",
]
