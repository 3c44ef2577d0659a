"""Environments for engines that do not fit into one with sparsec, under ``build/peers``; run as a script, it makes them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "build" / "peers"


@dataclass(frozen=True)
class Environment:
    """An environment.

    Attributes:
        packages: what pip installs.
        newest: the newest Python that they are made for.
    """

    packages: tuple[str, ...]
    newest: tuple[int, int] = (3, 13)


ENVIRONMENTS = {
    "openvino": Environment(("openvino", "numpy")),
    # The last release; later versions of what it imports break it.
    "deepsparse": Environment(("deepsparse==1.8.0", "numpy<2", "onnx<1.15", "protobuf<4", "pydantic<2.8"), newest=(3, 11)),
}


def interpreter(name: str) -> Path | None:
    """The Python of an environment; none where that was not made."""
    ready = FOLDER / name / ".ready"
    return FOLDER / name / "bin" / "python" if ready.exists() else None


def make(name: str) -> None:
    """Make an environment.

    Raises:
        RuntimeError: no Python here is old enough.
        subprocess.CalledProcessError: pip failed.
    """
    environment, folder = ENVIRONMENTS[name], FOLDER / name
    python = sys.executable
    if sys.version_info[:2] > environment.newest:
        wanted = f"python{environment.newest[0]}.{environment.newest[1]}"
        python = shutil.which(wanted) or ""
        if not python:
            raise RuntimeError(f"{wanted} is not installed")
    subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *environment.packages], check=True)
    (folder / ".ready").touch()


def main() -> int:
    """Make those that are not there; what cannot be made is not measured."""
    failed = 0
    for name in ENVIRONMENTS:
        if interpreter(name) is None:
            print(f"making an environment for {name}", flush=True)
            try:
                make(name)
            except (RuntimeError, subprocess.CalledProcessError) as error:
                print(f"{name} will not be measured: {error}")
                failed += 1
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
