"""How the native library is built, and what it says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsec.kernels import library

needs_library = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")


@needs_library
@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the system does not tell what the processor has")
def test_the_library_finds_what_the_processor_has():
    flags = set(Path("/proc/cpuinfo").read_text().split())
    wanted = {"avx512": {"avx512f"}, "avx2": {"avx2", "fma"}}
    expected = [isa for isa in library.status().compiled if wanted.get(isa, set()) <= flags]
    assert list(library.status().isas) == expected
