"""Facts about the machine and the installed packages, for results."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from sparsec.bench.result import Machine
from sparsec.processor import cores, cpu_model, output_of


def describe_machine(memory_bytes: int) -> Machine:
    """This machine.

    Args:
        memory_bytes: of main memory.
    """
    release, _, _ = platform.release().partition("-")  # what follows names a build, not a version
    system = f"{platform.system()} {release} {platform.machine()}"
    return Machine(cpu_model(), cores(), memory_bytes, system, gpu_names())


def gpu_names() -> tuple[str, ...]:
    """The NVIDIA GPUs that the driver's own tool lists; none where there is no such tool."""
    names = output_of("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
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
