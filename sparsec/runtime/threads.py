"""How many threads BLAS uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from typing import Any, Final

THREAD_VARIABLES: Final = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_NUM_THREADS")
"""The environment variables that BLAS libraries heed when they start."""


class BlasThreads:
    """A limit on the threads of the BLAS library that NumPy uses, in force while a model runs.

    The setting belongs to the process: while calls overlap, the limit of the one that began last holds for all, and what was
    set before the first of them returns when the last of them ends. Without the package ``threadpoolctl`` there is no limit.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._running = 0
        self._original: Any = None
        self._controller: Any = None

    @property
    def supported(self) -> bool:
        """Whether the number of threads can be set."""
        return find_spec("threadpoolctl") is not None

    @contextmanager
    def limited(self, threads: int | None) -> Iterator[None]:
        """Limit BLAS to ``threads`` threads, where that is asked for and can be done."""
        if threads is None or not (self._controller or self.supported):
            yield
            return
        self._enter(threads)
        try:
            yield
        finally:
            self._leave()

    def _enter(self, threads: int) -> None:
        with self._lock:
            if self._controller is None:
                self._controller = import_module("threadpoolctl").ThreadpoolController().select(user_api="blas")
            limiter = self._controller.limit(limits=threads)
            if self._running == 0:
                self._original = limiter
            self._running += 1

    def _leave(self) -> None:
        with self._lock:
            self._running -= 1
            if self._running == 0:
                self._original.restore_original_limits()
                self._original = None


BLAS_THREADS: Final = BlasThreads()
"""The one setting of the process."""


def blas_threads(wanted: int | None) -> int:
    """How many threads BLAS will use where ``wanted`` are asked for; an estimate for the cost model."""
    if wanted is not None and BLAS_THREADS.supported:
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [os.environ.get(name, "") for name in THREAD_VARIABLES]
    return min([cores, *(int(limit) for limit in limits if limit.isdigit() and int(limit) > 0)])
