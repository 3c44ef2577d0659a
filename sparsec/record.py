"""The record of a compilation: what became of every layer, why, and what it takes before and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sparsec.layers import LayerFacts, total_of
from sparsec.passes import Decision

PARTICIPLES = {"shrink": "shrunk", "fold": "folded"}


@dataclass(frozen=True)
class Cost:
    """What a layer takes.

    Attributes:
        parameters: the elements of its weights.
        macs: its multiply-accumulates for one sample; ``None`` where they depend on sizes that are open.
    """

    parameters: int
    macs: int | None

    @classmethod
    def of(cls, layer: LayerFacts) -> Cost:
        """The cost of a layer."""
        return cls(layer.parameters, layer.macs)

    @classmethod
    def total(cls, costs: Iterable[Cost]) -> Cost:
        """The sum of costs."""
        found = list(costs)
        return cls(sum(cost.parameters for cost in found), total_of(cost.macs for cost in found))


@dataclass(frozen=True)
class Channels:
    """What became of the output channels of a layer's kernels.

    Attributes:
        before: how many there were.
        kept: how many there are.
        merged: how many went into a representative.
        refused: how many are dead, but had to be kept.
    """

    before: int
    kept: int
    merged: int
    refused: int

    @property
    def removed(self) -> int:
        """How many went, merged ones aside."""
        return self.before - self.kept - self.merged

    def to_json(self) -> dict[str, int]:
        """The counts as a JSON object."""
        return {**asdict(self), "removed": self.removed}


@dataclass(frozen=True)
class Outcome:
    """What became of one layer.

    Attributes:
        layer: its path.
        before: what it took in the source; ``None`` where that is not known.
        after: what is left of it; ``None`` where nothing is, as when it was folded.
        channels: of its kernels; ``None`` where it has none.
        notes: the decisions about it, in words.
    """

    layer: str
    before: Cost | None
    after: Cost | None
    channels: Channels | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The outcome as a JSON object, without the notes: decisions stand beside it."""
        return {
            "layer": self.layer,
            "before": None if self.before is None else asdict(self.before),
            "after": None if self.after is None else asdict(self.after),
            "channels": None if self.channels is None else self.channels.to_json(),
        }


def outcomes(before: Sequence[LayerFacts], after: Sequence[LayerFacts], decisions: Sequence[Decision]) -> dict[str, Outcome]:
    """What became of every layer of the source, by its path, in order of execution.

    Args:
        before: the layers of the source.
        after: the layers of the optimised graph.
        decisions: what the passes decided.
    """
    left = {layer.layer: layer for layer in after}
    decided: dict[str, list[Decision]] = {}
    # A layer that is called several times is decided upon at every call.
    for decision in dict.fromkeys(decisions):
        decided.setdefault(decision.layer, []).append(decision)
    return {layer.layer: _outcome(layer, left.get(layer.layer), decided.get(layer.layer, [])) for layer in before}


def _outcome(before: LayerFacts, after: LayerFacts | None, decisions: Sequence[Decision]) -> Outcome:
    return Outcome(
        before.layer,
        Cost.of(before),
        None if after is None else Cost.of(after),
        _channels(before, after, decisions),
        tuple(describe(decision.to_json()) for decision in decisions),
    )


def _channels(before: LayerFacts, after: LayerFacts | None, decisions: Sequence[Decision]) -> Channels | None:
    units = sum(weight.channels for weight in before.weights)
    if not units:
        return None
    kept = sum(weight.channels for weight in after.weights) if after is not None else 0
    counts = {"merged": 0, "refused": 0}
    for decision in decisions:
        if decision.outcome in counts:
            counts[decision.outcome] += decision.channels or 0
    return Channels(units, kept, **counts)


def manifest_report(found: Iterable[Outcome], decisions: Sequence[Decision]) -> dict[str, Any]:
    """The record as it stands in the manifest of a bundle, without the layers of which there is nothing to say."""
    layers = [outcome.to_json() for outcome in found if outcome.notes or outcome.before not in (None, Cost(0, 0))]
    return {"layers": layers, "decisions": [decision.to_json() for decision in dict.fromkeys(decisions)]}


def recorded(report: Mapping[str, Any] | None) -> dict[str, Outcome]:
    """What became of every layer, from the report in a bundle, whose content nobody vouches for."""
    report = report or {}
    notes: dict[str, dict[str, None]] = {}
    for item in _objects(report.get("decisions")):
        notes.setdefault(str(item.get("layer", "")), {})[describe(item)] = None
    found = {
        str(item.get("layer", "")): Outcome(
            str(item.get("layer", "")),
            _cost(item.get("before")),
            _cost(item.get("after")),
            _counts(item.get("channels")),
            tuple(notes.pop(str(item.get("layer", "")), ())),
        )
        for item in _objects(report.get("layers"))
    }
    return {**found, **{layer: Outcome(layer, None, None, None, tuple(texts)) for layer, texts in notes.items()}}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _cost(value: Any) -> Cost | None:
    parameters = _count(value.get("parameters")) if isinstance(value, dict) else None
    return None if parameters is None else Cost(parameters, _count(value.get("macs")))


def _counts(value: Any) -> Channels | None:
    if not isinstance(value, dict):
        return None
    before, kept, merged, refused = (_count(value.get(name)) for name in ("before", "kept", "merged", "refused"))
    if before is None or kept is None or merged is None or refused is None or kept + merged > before:
        return None
    return Channels(before, kept, merged, refused)


def describe(decision: Mapping[str, Any]) -> str:
    """A decision of a pass in words, from its JSON form."""
    stage, outcome, reason = (str(decision.get(key, "")) for key in ("stage", "outcome", "reason"))
    before, after = decision.get("before"), decision.get("after")
    if outcome == "refused":
        # Some of a layer's channels may go and others not; each is a decision of its own.
        what = f"not {PARTICIPLES.get(stage, stage)}{' further' if before != after else ''}"
    elif outcome == "merged" or before is None:
        what = outcome
    else:
        what = f"{outcome} {before} -> {after}"
    return f"{what}: {reason}" if reason else what
