"""Magnitude pruning in one shot, of single weights or of whole units, on Keras files and on models in memory."""

from __future__ import annotations

from sparsec.pruning.files import prune_file
from sparsec.pruning.masks import unit_mask, unit_scores, weight_mask
from sparsec.pruning.memory import prune_units, prune_weights
from sparsec.pruning.plan import METHODS, SCOPES
from sparsec.pruning.report import LayerReport, PruneReport

__all__ = [
    "METHODS",
    "SCOPES",
    "LayerReport",
    "PruneReport",
    "prune_file",
    "prune_units",
    "prune_weights",
    "unit_mask",
    "unit_scores",
    "weight_mask",
]
