"""What a bundle holds beside the program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparsec.bundle.selfcheck import SelfCheck
from sparsec.program import Program


@dataclass(frozen=True)
class BundleMeta:
    """What a bundle says about itself; nothing in it changes what the program computes.

    Attributes:
        level: the level of the file, ``stored`` or ``plain``; :func:`~sparsec.bundle.write_bundle` sets it.
        sparsec_version: the version that wrote the file; :func:`~sparsec.bundle.write_bundle` sets it.
        source_sha256: SHA-256 of the source file in lower-case hexadecimal, ``None`` where there is no file.
        options: the options it was compiled with, JSON values.
        report: what became of each layer, and why, free JSON; ``None`` leaves it out.
        selfcheck: expected outputs of the original model, ``None`` where there are none.
    """

    level: str = ""
    sparsec_version: str = ""
    source_sha256: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] | None = None
    selfcheck: SelfCheck | None = None


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read.

    Attributes:
        program: the program, checked.
        meta: what the file says beside it.
    """

    program: Program
    meta: BundleMeta
