"""The runtime: bundles run on NumPy and SciPy, without the framework that trained the model."""

from sparsec.runtime.model import Model, load
from sparsec.runtime.plan import PlannedStep
from sparsec.runtime.signature import TensorInfo

__all__ = ["Model", "PlannedStep", "TensorInfo", "load"]
