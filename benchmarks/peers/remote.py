"""Engines in environments of their own: one process for each, which ``worker.py`` runs in."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from peers.environments import interpreter
from sparsec.ir import Array

SCRIPT = Path(__file__).with_name("worker.py")


def clean_environment() -> dict[str, str]:
    """The variables of this process without what is on its path, such as a checkout of sparsec."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


class RemoteError(Exception):
    """An engine failed; the message is its own."""


class Worker:
    """A process that runs one engine.

    Args:
        engine: as ``worker.py`` calls it.
        python: the interpreter of its environment.
        folder: for arrays on their way.
    """

    def __init__(self, engine: str, python: Path, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        command = [str(python), str(SCRIPT), engine]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=clean_environment(),
        )
        self.version = str(self._read()["version"])

    def open(self, path: os.PathLike[str], x: Array, threads: int) -> RemoteModel:
        """Open a model for one input.

        Raises:
            RemoteError: the engine does not open it.
        """
        given = self._folder / f"{self._engine}-x.npy"
        np.save(given, x)
        found = self.ask({"open": str(path), "x": str(given), "threads": threads})
        return RemoteModel(self, int(found["model"]), self._folder / f"{self._engine}-y.npy")

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """The answer to a command.

        Raises:
            RemoteError: the engine failed, or its process ended.
        """
        assert self._process.stdin is not None
        print(json.dumps(command), file=self._process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RemoteError(f"the process of {self._engine} ended with status {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise RemoteError(found["error"])
        return found


@dataclass(frozen=True)
class RemoteModel:
    """A model that a worker has opened.

    Attributes:
        worker: which.
        number: of the model.
        result: where the worker puts outputs.
    """

    worker: Worker
    number: int
    result: Path

    def seconds(self, repeats: int) -> float:
        """Call it so often, after one call that is not counted; returns the seconds of one call."""
        return float(self.worker.ask({"run": self.number, "repeats": repeats})["seconds"])

    def output(self) -> Array:
        """What it computes."""
        self.worker.ask({"output": self.number, "to": str(self.result)})
        return np.asarray(np.load(self.result))


class Workers:
    """The workers that a measurement needs, started when they are asked for; a context that ends them."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._workers: dict[str, Worker] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._workers.values():
            worker.close()
        self._folder.cleanup()

    def get(self, environment: str) -> Worker | None:
        """The worker of an environment; none where the environment is not there."""
        if environment not in self._workers:
            python = interpreter(environment)
            if python is None:
                return None
            self._workers[environment] = Worker(environment, python, Path(self._folder.name))
        return self._workers[environment]

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the engines that were started."""
        return {name: worker.version for name, worker in self._workers.items()}
