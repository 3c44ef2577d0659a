"""The results, kept from run to run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from common import RESULTS, write_json, write_text

from peers.facts import Fact, Key, Run
from peers.setups import Setup, merged, place
from peers.workloads import WORKLOADS
from sparsec.bench import Machine

NAME = "native"


class Results:
    """Facts by what they are about.

    Args:
        folder: where the files are.
    """

    def __init__(self, folder: Path = RESULTS) -> None:
        self.folder = folder
        self._path = folder / f"{NAME}.json"
        self._facts: dict[Key, Fact] = {}
        if self._path.exists():
            found = json.loads(self._path.read_text(encoding="utf-8"))
            setups = [_setup(**setup) for setup in found["setups"]]
            facts = [_fact(setups, **fact) for fact in found["facts"]]
            # A workload that is no more has no title, and no place in tables.
            self._facts = {fact.key: fact for fact in facts if fact.workload in WORKLOADS}

    @property
    def facts(self) -> list[Fact]:
        """All facts, in the order of tables."""
        order = list(WORKLOADS)
        return sorted(self._facts.values(), key=lambda fact: (order.index(fact.workload), *fact.key[1:]))

    def add(self, facts: Iterable[Fact]) -> None:
        """Add what a run found, and keep what older runs found of other engines."""
        self._facts |= {fact.key: fact.after(self._facts.get(fact.key)) for fact in facts}

    def forget(self, build: str) -> None:
        """Leave out figures of sparsec that other builds than this gave."""
        facts = (fact.by_build(build) for fact in self._facts.values())
        self._facts = {fact.key: fact for fact in facts if fact.runs}

    def has(self, key: Key, engines: Iterable[str], setup: Setup) -> bool:
        """Whether engines were measured side by side on a setup, by its very build of sparsec; those that failed count too."""
        fact = self._facts.get(key)
        if fact is None:
            return False
        newest = fact.runs[0]
        known = newest.setup.build == setup.build and newest.setup.agrees(setup)
        return known and set(engines) <= {*newest.milliseconds, *newest.missing}

    def save(self) -> None:
        """Write the JSON."""
        facts = self.facts
        setups = merged(run.setup for fact in facts for run in fact.runs)
        kept = [{"machine": asdict(setup.machine), "versions": dict(setup.versions)} for setup in setups]
        write_json(self._path, {"benchmark": NAME, "setups": kept, "facts": [_json(fact, setups) for fact in facts]})

    def publish(self, page: str) -> None:
        """Write the page that shows them."""
        write_text(self._path.with_suffix(".md"), page)


def _json(fact: Fact, setups: Sequence[Setup]) -> dict[str, Any]:
    def written(run: Run) -> dict[str, Any]:
        return asdict(run) | {"setup": place(run.setup, setups), "build": run.setup.build}

    return asdict(replace(fact, runs=())) | {"runs": [written(run) for run in fact.runs]}


def _setup(machine: Mapping[str, Any], versions: Mapping[str, str]) -> Setup:
    return Setup(Machine(**{**machine, "gpus": tuple(machine["gpus"])}), versions, "")


def _fact(setups: Sequence[Setup], runs: Iterable[Mapping[str, Any]], **about: Any) -> Fact:
    def read(setup: int, build: str, **found: Any) -> Run:
        return Run(setup=replace(setups[setup], build=build), **found)

    return Fact(**about, runs=tuple(read(**run) for run in runs))
