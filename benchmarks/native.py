"""The native engine and its peers, side by side: layers and networks, by sparsity, batch and threads.

Results are added to those that are there, so that parts can be measured one after the other, such as::

    python benchmarks/native.py --workloads resnet50 --sparsities sweep --peers onnxruntime-int8 openvino

Every workload is saved once it is measured, and ``--resume`` leaves out what was measured with this very build. What fails is
told at the end, and the rest is measured nevertheless. ``--check`` compares the results with what they are to reach.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import traceback
from collections.abc import Iterator, Sequence
from time import monotonic

import memory
from common import Rounds
from peers.artefacts import FOLDER
from peers.engines import ENGINES, REFERENCE, SPARSEC, Engine
from peers.environments import interpreter
from peers.facts import Fact
from peers.measure import Case, measure
from peers.page import page
from peers.plots import plot_groups
from peers.remote import Workers
from peers.results import Results
from peers.setups import this_setup
from peers.verdicts import COLUMNS, verdicts
from peers.workloads import GROUPS, WORKLOADS, Workload
from threadpoolctl import threadpool_limits

from sparsec.text import render

SPARSITIES = (0.8, 0.9, 0.95)
SWEEP = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
ROUNDS = (5, 15)
SPREAD = 0.01


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for, and write the results; or check them.

    Args:
        arguments: of the command line; ``None`` for those of this process.

    Raises:
        SystemExit: sparsec computed something wrong, a workload could not be measured, or a figure is not what it is to be.
    """
    options = _parser().parse_args(arguments)
    results = Results()
    if options.check:
        sys.exit(_check(results))
    if options.forget:
        results.forget(this_setup({}).build)
        results.save()
    if options.fresh:
        shutil.rmtree(FOLDER, ignore_errors=True)
    engines = _engines(options.peers)
    least, most = options.rounds
    rounds = Rounds(least, most, SPREAD)
    wrong = []
    for case in () if options.tables else _cases(options):
        if options.resume and _is_known(case, engines, results):
            print(f"{case}: measured before", flush=True)
            continue
        start = monotonic()
        try:
            with Workers() as workers, threadpool_limits(1, user_api="blas"):
                facts = measure(case, engines, rounds, workers)
        except Exception as error:
            # Whatever it was, other workloads can be measured.
            traceback.print_exc()
            wrong.append(f"{case}: {type(error).__name__}: {error}")
            continue
        results.add(facts)
        results.save()
        for fact in facts:
            print(_line(fact), flush=True)
            wrong += fact.wrong
        print(f"  in {monotonic() - start:.0f} s", flush=True)
    results.publish(page(results.facts, plot_groups(results.facts, results.folder)))
    if wrong:
        sys.exit("\n".join(wrong))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers = [name for name in ENGINES if name not in (REFERENCE, SPARSEC)]
    several = "+"
    parser.add_argument("--workloads", nargs=several, default=["all"], choices=[*GROUPS, *WORKLOADS], metavar="NAME")
    parser.add_argument("--sparsities", nargs=several, default=list(map(str, SPARSITIES)), help="shares of zeros, or `sweep`")
    parser.add_argument("--batches", nargs=several, type=int, help="by default those of each workload")
    parser.add_argument("--threads", nargs=several, type=int, default=[1], help="more than one are measured beside one")
    parser.add_argument(
        "--rounds",
        nargs=2,
        type=int,
        default=ROUNDS,
        metavar=("LEAST", "MOST"),
        help=f"until medians are sure to {SPREAD:.0%}%",
    )
    parser.add_argument("--peers", nargs="*", default=peers, choices=peers, metavar="ENGINE", help=f"of {', '.join(peers)}")
    parser.add_argument("--resume", action="store_true", help="leave out what was measured with this very build")
    parser.add_argument("--forget", action="store_true", help="drop figures of sparsec that other builds than this gave")
    parser.add_argument("--fresh", action="store_true", help="build the models anew")
    parser.add_argument("--tables", action="store_true", help="measure nothing, and write tables and plots of what is there")
    parser.add_argument("--check", action="store_true", help="measure nothing, and fail where a figure is not what it is to be")
    return parser


def _engines(peers: Sequence[str]) -> list[Engine]:
    """The reference, sparsec, and those peers that are installed."""
    found = []
    for name in ENGINES:
        environment = ENGINES[name].environment
        if name not in (REFERENCE, SPARSEC, *peers):
            continue
        if environment is not None and interpreter(environment) is None:
            print(f"{name} is not measured: its environment is not there; `make peers` makes it")
        else:
            found.append(ENGINES[name])
    return found


def _cases(options: argparse.Namespace) -> Iterator[Case]:
    sparsities = SWEEP if options.sparsities == ["sweep"] else tuple(map(float, options.sparsities))
    for workload in _workloads(options.workloads):
        for batch in options.batches or workload.batches:
            for threads in options.threads:
                yield Case(workload, batch, sparsities, threads)


def _is_known(case: Case, engines: Sequence[Engine], results: Results) -> bool:
    names, setup = [engine.name for engine in case.fitting(engines)], this_setup({})
    return all(results.has(key, names, setup) for key in case.keys)


def _check(results: Results) -> int:
    """Show what is wanted and what was seen; 1 where a figure that was measured is not as wanted."""
    found = list(verdicts(results.facts, memory.shares()))
    print(render(COLUMNS, [verdict.row for verdict in found]))
    missed, unknown = (sum(map(has, found)) for has in (lambda v: v.missed, lambda v: not v.measured))
    print(f"{len(found)} requirements: {missed} missed, {unknown} not measured in full")
    return int(missed > 0)


def _workloads(names: Sequence[str]) -> list[Workload]:
    found = [workload for name in names for workload in GROUPS.get(name, ()) or (WORKLOADS[name],)]
    return list({workload.name: workload for workload in found}.values())


def _line(fact: Fact) -> str:
    """What the run of a new fact found."""
    run = fact.runs[0]
    shown = " ".join(
        f"{name} {run.milliseconds[REFERENCE] / run.net(name):.2f}" for name in run.milliseconds if name != REFERENCE
    )
    failed = "".join(f"; {name}: {reason}" for name, reason in run.missing.items())
    return f"{fact}: {fact.reference:.3g} ms; {shown}; off by {run.error:.1e}{failed}"


if __name__ == "__main__":
    main()
