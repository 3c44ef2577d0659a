"""The tests of the native kernels again, with a library that checks every access to memory, every overflow, and threads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from native_builds import ROOT, build

SOURCES = ROOT / "sparsec" / "kernels" / "native"
TESTS = ROOT / "tests"
COMPILER = os.environ.get("CC") or "cc"

KERNELS = sorted(path.name for path in TESTS.glob("test_native*.py"))
MODELS = ["test_kernels.py", "test_recurrent.py", "test_runtime.py"]
"""Tests that run whole models, which plan where values lie in memory."""


def _runtime(name):
    """The path of a library that belongs to the compiler; ``""`` where it has none."""
    if not shutil.which(COMPILER):
        return ""
    command = [COMPILER, f"-print-file-name={name}"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return found if Path(found).is_absolute() else ""


MEMORY = {"address": "libasan.so", "undefined": "libubsan.so"}
THREADS = {"thread": "libtsan.so"}
"""Sanitizers, and the libraries that they need."""


def run_under(sanitizers, optimisation, files):
    """Build the library with these sanitizers and this optimisation, and run the quick tests of some files with it."""
    if not shutil.which("cmake"):
        pytest.skip("there is no cmake")
    runtime = [_runtime(name) for name in sanitizers.values()]
    if not all(runtime):
        pytest.skip(f"the C compiler {COMPILER} lacks one of {', '.join(sanitizers.values())}")
    define = {"SPARSEC_SANITIZE": ",".join(sanitizers), "CMAKE_BUILD_TYPE": "Debug", "CMAKE_C_FLAGS_DEBUG": optimisation}
    folder = build(f"{'-'.join(sanitizers)}{optimisation}", SOURCES, lambda folder: define)
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(runtime),
        # Python does not free everything.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0",
        "PYTHONPATH": str(ROOT),
        "SPARSEC_NATIVE": str(folder),
        # Other libraries' threads do not tell the sanitizer what they wait for.
        "OPENBLAS_NUM_THREADS": "1",
    }
    # What is emulated runs in another process. Sanitizers report to the file descriptor that pytest would capture.
    options = ["-q", "-x", "-p", "no:cacheprovider", "--capture=sys", "-k", "not neon"]
    command = [sys.executable, "-m", "pytest", *options, *(TESTS / name for name in files)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[:5000]
    assert " passed" in done.stdout


def test_kernels_are_clean():
    run_under(MEMORY, "-O0", KERNELS)


@pytest.mark.slow
def test_kernels_and_models_are_clean_when_optimised():
    run_under(MEMORY, "-O1", [*KERNELS, *MODELS])


@pytest.mark.slow
def test_threads_do_not_race():
    run_under(THREADS, "-O0", [*KERNELS, "test_kernels.py", "test_runtime.py"])
