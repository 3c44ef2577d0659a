"""Runs every benchmark; the results are in ``benchmarks/results``."""

from __future__ import annotations

import sys
import traceback

import choice
import families
import import_time
import kernels
import memory
import native
import networks
import recurrent
import shrunk
import widths


def main() -> None:
    """Run them one after the other, those first that others disturb most; what fails is told at the end."""
    failed = []
    for benchmark in (import_time, kernels, native, memory, networks, recurrent, shrunk, widths, families, choice):
        print(f"--- {benchmark.__name__}", flush=True)
        try:
            benchmark.main()
        except (Exception, SystemExit) as problem:
            # Others do not depend on it. That a figure is not as wanted is told by an exit.
            traceback.print_exception(problem)
            failed.append(f"{benchmark.__name__}: {problem}")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
