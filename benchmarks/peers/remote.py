"""Engines in environments of their own: one process for each, which ``worker.py`` runs in."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import Any

import numpy as np

from peers.environments import interpreter
from sparsec.ir import Array

SCRIPT = Path(__file__).with_name("worker.py")
LIMIT_SECONDS = 120.0
CLOSING_SECONDS = 10.0


def clean_environment() -> dict[str, str]:
    """The variables of this process without what is on its path, such as a checkout of sparsec."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


class RemoteError(Exception):
    """An engine failed, or its process ended; the message is its own, or says so."""


class Worker:
    """A process that runs one engine. Once it has ended, whatever is asked of it fails for the same reason.

    Args:
        engine: as ``worker.py`` calls it.
        python: the interpreter of its environment.
        folder: for arrays on their way.
        limit: the seconds that it may take for an answer, before it is taken to hang, and ended.
    """

    def __init__(self, engine: str, python: Path, folder: Path, limit: float = LIMIT_SECONDS) -> None:
        self._engine = engine
        self._folder = folder
        self._limit = limit
        self._ended = ""
        command = [str(python), str(SCRIPT), engine]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=clean_environment(),
        )
        self.version = ""
        # Why it did not start is what the first question gets to hear.
        with suppress(RemoteError):
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
        if self._ended:
            raise RemoteError(self._ended)
        assert self._process.stdin is not None
        # That it has ended is what reading finds out.
        with suppress(BrokenPipeError):
            print(json.dumps(command), file=self._process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        watch = Timer(self._limit, self._give_up)
        watch.start()
        line = self._process.stdout.readline()
        watch.cancel()
        if not line:
            status = self._process.wait()
            self._ended = self._ended or f"its process ended with status {status}"
            raise RemoteError(self._ended)
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise RemoteError(found["error"])
        return found

    def _give_up(self) -> None:
        self._ended = f"it did not answer within {self._limit:g} seconds"
        self._process.kill()


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

    def get(self, environment: str) -> Worker:
        """The worker of an environment.

        Raises:
            RemoteError: the environment is not there.
        """
        if environment not in self._workers:
            python = interpreter(environment)
            if python is None:
                raise RemoteError("its environment is not there")
            self._workers[environment] = Worker(environment, python, Path(self._folder.name))
        return self._workers[environment]

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the engines that were started."""
        return {name: worker.version for name, worker in self._workers.items() if worker.version}
