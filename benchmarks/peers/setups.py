"""What figures were measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from common import machine

import sparsec
from sparsec.bench import Machine
from sparsec.bench.machine import package_versions

PACKAGES = ("sparsec", "numpy", "scipy", "onnxruntime", "tensorflow", "keras")
CODE = (".py", ".so", ".dylib")


@dataclass(frozen=True)
class Setup:
    """A machine and what was installed there.

    Attributes:
        machine: which.
        versions: by package, and of the engines in environments of their own that took part.
        build: tells builds of sparsec apart that have one version.
    """

    machine: Machine
    versions: Mapping[str, str]
    build: str

    def agrees(self, other: Setup) -> bool:
        """Whether nothing but the build of sparsec is known to differ."""
        both = self.versions.keys() & other.versions.keys()
        return self.machine == other.machine and all(self.versions[name] == other.versions[name] for name in both)

    def __str__(self) -> str:
        here = self.machine
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{here.cpu}, {here.cores} cores, {here.system}; {versions}"


def this_setup(others: Mapping[str, str]) -> Setup:
    """What this process measures on.

    Args:
        others: versions of engines in environments of their own.
    """
    return Setup(machine(), {**package_versions(PACKAGES), **others}, _build())


def merged(setups: Iterable[Setup]) -> list[Setup]:
    """Setups that differ in more than the build; of those that agree, the first with the versions of all."""
    found: list[Setup] = []
    for setup in setups:
        if any(other.agrees(setup) for other in found):
            index = place(setup, found)
            found[index] = replace(found[index], versions={**found[index].versions, **setup.versions})
        else:
            found.append(setup)
    return found


def place(setup: Setup, among: Sequence[Setup]) -> int:
    """Where a setup is among those that :func:`merged` made of it and others."""
    return next(index for index, other in enumerate(among) if other.agrees(setup))


@cache
def _build() -> str:
    """A digest of sparsec's code, the native library's included."""
    folder = Path(sparsec.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in CODE):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
