"""Facts about the machine and the installed packages, for results."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which

from sparsec.bench.result import Machine


def describe_machine(memory_bytes: int) -> Machine:
    """This machine.

    Args:
        memory_bytes: of main memory.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    release, _, _ = platform.release().partition("-")  # what follows names a build, not a version
    system = f"{platform.system()} {release} {platform.machine()}"
    return Machine(cpu_model(), cores, memory_bytes, system, gpu_names())


def cpu_model() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    if platform.system() == "Darwin":
        return _output_of("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    return platform.processor() or platform.machine()


def gpu_names() -> tuple[str, ...]:
    """The NVIDIA GPUs that the driver's own tool lists; none where there is no such tool."""
    names = _output_of("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return tuple(line.strip() for line in names.splitlines() if line.strip())


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _output_of(*command: str) -> str:
    if which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    return done.stdout.strip() if done.returncode == 0 else ""
