"""The bundle: a program in one file, a zip of a JSON manifest and arrays. ``formats/bundle.md`` defines it."""

from sparsec.bundle.digest import content_digest
from sparsec.bundle.meta import Bundle, BundleMeta
from sparsec.bundle.reader import read_bundle
from sparsec.bundle.selfcheck import InputSample, SelfCheck, SelfCheckResult, make_selfcheck, sample_inputs, selfcheck_of
from sparsec.bundle.writer import write_bundle

__all__ = [
    "Bundle",
    "BundleMeta",
    "InputSample",
    "SelfCheck",
    "SelfCheckResult",
    "content_digest",
    "make_selfcheck",
    "read_bundle",
    "sample_inputs",
    "selfcheck_of",
    "write_bundle",
]
