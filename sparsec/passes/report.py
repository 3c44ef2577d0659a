"""What passes record about their decisions, for summaries, ``--json`` and the manifest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Decision:
    """One decision of one pass about one layer.

    Attributes:
        stage: the pass, such as ``fold`` or ``shrink``.
        layer: path of the layer, as in the source.
        outcome: ``folded``, ``shrunk``, ``merged`` or ``refused``.
        reason: one clause that says why, or where to.
        before: channels before, where the decision is about channels.
        after: channels after, likewise.
        channels: how many channels the decision itself is about.
    """

    stage: str
    layer: str
    outcome: str
    reason: str
    before: int | None = None
    after: int | None = None
    channels: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The decision as a JSON object, without what does not apply."""
        return {key: value for key, value in asdict(self).items() if value is not None}
