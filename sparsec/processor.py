"""Facts about the processor: its name, and the caches of a core."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from shutil import which


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    if platform.system() == "Darwin":
        return output_of("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    return platform.processor() or platform.machine()


def data_caches(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> dict[int, int]:
    """The bytes of the caches that hold data, by level, as far as the system tells."""
    found = {}
    try:
        for cache in folder.glob("index*"):
            kind, level, size = ((cache / name).read_text().strip() for name in ("type", "level", "size"))
            if kind != "Instruction":
                found[int(level)] = int(size.removesuffix("K")) * 1024
    except (OSError, ValueError):
        return {}
    return found


def output_of(*command: str) -> str:
    """What a command prints; empty where it is not there or fails."""
    if which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    return done.stdout.strip() if done.returncode == 0 else ""
