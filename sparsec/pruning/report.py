"""What pruning did, layer by layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from typing import Any


@dataclass(frozen=True)
class LayerReport:
    """What pruning did to one kernel.

    Attributes:
        path: of the kernel, ``<layer>/<variable>``.
        layer: path of the layer.
        shape: of the kernel.
        zeros_before: zeros in it before pruning.
        zeros_after: zeros in it now.
        units: its columns or filters.
        pruned_units: units that unit pruning set to zero; 0 for weight pruning.
        group: the first kernel of the group it was ranked in; ``None`` where it was ranked by itself.
        kept: why it was not pruned; empty where it was.
    """

    path: str
    layer: str
    shape: tuple[int, ...]
    zeros_before: int
    zeros_after: int
    units: int
    pruned_units: int = 0
    group: str | None = None
    kept: str = ""

    @property
    def size(self) -> int:
        """The number of weights."""
        return prod(self.shape)


@dataclass(frozen=True)
class PruneReport:
    """What pruning did to a model.

    Attributes:
        source: how messages call the model.
        method: ``weight`` or ``unit``.
        sparsity: what was asked for, of each layer (or group) or of all together.
        scope: ``layer`` or ``global``.
        layers: every kernel of the model, those that were not pruned included.
        zeroed: the other variables of pruned units that were zeroed, by path.
    """

    source: str
    method: str
    sparsity: float
    scope: str
    layers: tuple[LayerReport, ...]
    zeroed: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Weights of all kernels."""
        return sum(layer.size for layer in self.layers)

    @property
    def zeros_before(self) -> int:
        """Zeros in all kernels before pruning."""
        return sum(layer.zeros_before for layer in self.layers)

    @property
    def zeros_after(self) -> int:
        """Zeros in all kernels now."""
        return sum(layer.zeros_after for layer in self.layers)

    @property
    def units(self) -> int:
        """Units of all kernels."""
        return sum(layer.units for layer in self.layers)

    @property
    def pruned_units(self) -> int:
        """Units of all kernels that unit pruning set to zero."""
        return sum(layer.pruned_units for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object, totals included."""
        totals = ("size", "zeros_before", "zeros_after", "units", "pruned_units")
        return {
            "source": self.source,
            "method": self.method,
            "sparsity": self.sparsity,
            "scope": self.scope,
            "layers": [{**asdict(layer), "shape": list(layer.shape)} for layer in self.layers],
            "zeroed": list(self.zeroed),
            "totals": {name: getattr(self, name) for name in totals},
        }
