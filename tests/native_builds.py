"""Building the native library in ways of which only tests make use."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build(name, sources, definitions):
    """Build what has changed since the last time in a folder of ``build/`` of this name; returns the folder.

    Args:
        name: of the folder.
        sources: with the ``CMakeLists.txt``.
        definitions: a function of the folder that gives the values of CMake's variables.
    """
    folder = ROOT / "build" / name
    folder.mkdir(parents=True, exist_ok=True)
    fresh = not (folder / "CMakeCache.txt").exists()
    generator = ["-G", "Ninja"] if fresh and shutil.which("ninja") else []
    # Another test may want the same.
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        defined = [f"-D{key}={value}" for key, value in definitions(folder).items()]
        for command in (["-S", sources, "-B", folder, *generator, *defined], ["--build", folder, "--parallel", "2"]):
            done = subprocess.run(["cmake", *command], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder
