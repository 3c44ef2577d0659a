"""Runs every benchmark; the results are in ``benchmarks/results``."""

from __future__ import annotations

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
    """Run them one after the other, those first that others disturb most."""
    for benchmark in (import_time, kernels, native, memory, networks, recurrent, shrunk, widths, families, choice):
        print(f"--- {benchmark.__name__}", flush=True)
        benchmark.main()


if __name__ == "__main__":
    main()
