"""The native engine and its peers, side by side: layers and networks, by sparsity, batch and threads.

Results are added to those that are there, so that parts can be measured one after the other, such as::

    python benchmarks/native.py --workloads resnet50 --sparsities sweep --peers onnxruntime-int8 openvino
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence

from peers.artefacts import FOLDER
from peers.engines import ENGINES, REFERENCE, SPARSEC
from peers.facts import Fact
from peers.measure import Case, measure
from peers.remote import Workers
from peers.results import Results
from peers.workloads import GROUPS, WORKLOADS, Workload
from threadpoolctl import threadpool_limits

SPARSITIES = (0.8, 0.9, 0.95)
SWEEP = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
ROUNDS = 7


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for, and write the results.

    Args:
        arguments: of the command line; ``None`` for those of this process.

    Raises:
        SystemExit: sparsec computed something wrong; the results are written nevertheless.
    """
    options = _parser().parse_args(arguments)
    results = Results()
    if options.fresh:
        shutil.rmtree(FOLDER, ignore_errors=True)
    engines = [engine for name, engine in ENGINES.items() if name in {REFERENCE, SPARSEC, *options.peers}]
    wrong = []
    try:
        for case in () if options.tables else _cases(options):
            with Workers() as workers, threadpool_limits(1, user_api="blas"):
                facts = measure(case, engines, options.rounds, workers)
                results.add(facts, workers.versions)
            for fact in facts:
                print(_line(fact), flush=True)
                wrong += fact.wrong
    finally:
        # What was measured before something failed is kept.
        results.write()
    if wrong:
        raise SystemExit("\n".join(wrong))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers = [name for name in ENGINES if name not in (REFERENCE, SPARSEC)]
    several = "+"
    parser.add_argument("--workloads", nargs=several, default=["all"], choices=[*GROUPS, *WORKLOADS], metavar="NAME")
    parser.add_argument("--sparsities", nargs=several, default=list(map(str, SPARSITIES)), help="shares of zeros, or `sweep`")
    parser.add_argument("--batches", nargs=several, type=int, help="by default those of each workload")
    parser.add_argument("--threads", nargs=several, type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--peers", nargs="*", default=peers, choices=peers, metavar="ENGINE", help=f"of {', '.join(peers)}")
    parser.add_argument("--fresh", action="store_true", help="build the models anew")
    parser.add_argument("--tables", action="store_true", help="measure nothing, and write tables and plots of what is there")
    return parser


def _cases(options: argparse.Namespace) -> Iterator[Case]:
    sparsities = SWEEP if options.sparsities == ["sweep"] else tuple(map(float, options.sparsities))
    for workload in _workloads(options.workloads):
        for batch in options.batches or workload.batches:
            yield Case(workload, batch, sparsities, tuple(options.threads))


def _workloads(names: Sequence[str]) -> list[Workload]:
    found = [workload for name in names for workload in GROUPS.get(name, ()) or (WORKLOADS[name],)]
    return list({workload.name: workload for workload in found}.values())


def _line(fact: Fact) -> str:
    others = {name: fact.speedup(name) for name in fact.milliseconds if name != REFERENCE}
    shown = " ".join(f"{name} {value:.2f}" for name, value in others.items() if value is not None)
    return f"{fact}: {fact.milliseconds[REFERENCE]:.3g} ms; {shown}; off by {fact.error:.1e}"


if __name__ == "__main__":
    main()
