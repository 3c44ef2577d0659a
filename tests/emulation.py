"""The native library on an emulated processor, in the place of that of this process.

A program with the library in it (``native/driver.c``) runs under QEMU. It is sent a plan with all that the plan refers to, as
an image of memory in which pointers are relative, and sends back what the plan has written. A test that asks :func:`use` for an
instruction set runs steps and whole models there as it would in this process. C structures have the same layout on all
processors with 64 bits and the lower byte first.
"""

from __future__ import annotations

import ctypes
import shlex
import shutil
import struct
import subprocess
import sys
import threading
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from native_builds import ROOT, build

from sparsec.kernels import library
from sparsec.kernels.library import KERNELS, Call, Copy, Filters, Library, Matrix, Plan, Post, Slices, Status, Step

NEON = next(isa for isa in library.ISAS if isa.name == "neon")
COMPILER = "aarch64-linux-gnu-gcc"
ALIGNMENT = 64


def _emulator():
    return shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")


def lacks():
    """What is missing to emulate NEON; ``""`` where nothing is."""
    if not shutil.which("cmake"):
        return "there is no cmake"
    if not _emulator():
        return "there is no qemu-aarch64, which is in Debian's package qemu-user"
    if not shutil.which(COMPILER) and find_spec("ziglang") is None:
        return f"there is neither {COMPILER} nor the Python package ziglang"
    return ""


PRESENT = library.status().isas
ISAS = (*PRESENT, *([] if NEON.name in PRESENT else [NEON.name]))
"""The instruction sets that can be tested: those of this machine, and what is emulated."""

PARAMETERS = [
    pytest.param(name, marks=pytest.mark.skipif(name not in PRESENT and bool(lacks()), reason=lacks())) for name in ISAS
]
"""The same for ``pytest.fixture(params=...)``; skipped, with the reason, where it cannot be emulated."""


def use(name, monkeypatch):
    """Run what follows with this instruction set, in this process or emulated."""
    if name in PRESENT:
        monkeypatch.setenv(library.VARIABLE, name)
    else:
        emulated = Status(_library(), built=True, isas=(name,), compiled=(name,))
        monkeypatch.setattr(library, "_status", lambda wanted, folder: emulated)
    assert library.status().isa == name


# --- the program -------------------------------------------------------------------------------------------------------


def _build():
    """Compile the driver, or what of it has changed."""
    target = {"CMAKE_SYSTEM_NAME": "Linux", "CMAKE_SYSTEM_PROCESSOR": "aarch64", "CMAKE_BUILD_TYPE": "Release"}
    if shutil.which(COMPILER):
        name, tools = "neon-gcc", lambda folder: {"CMAKE_C_COMPILER": COMPILER}
    else:
        name, tools = "neon-zig", _zig
    return build(name, ROOT / "tests" / "native", lambda folder: target | tools(folder)) / "driver"


def _zig(folder):
    """The tools of ziglang, each as one file, which is what CMake takes."""
    tools = {"CMAKE_C_COMPILER": ("cc", "-target", "aarch64-linux-musl"), "CMAKE_AR": ("ar",), "CMAKE_RANLIB": ("ranlib",)}
    for name, arguments in tools.items():
        path = folder / f"zig-{arguments[0]}"
        path.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-m", "ziglang", *arguments])} "$@"\n')
        path.chmod(0o755)
        tools[name] = path
    return tools


# --- images of memory --------------------------------------------------------------------------------------------------

_RAW = {
    "depthwise": lambda step: step.y.channels * step.window.height * step.window.width,
    "gather": lambda step: step.options[0] * step.y.channels,
}
"""By kernel, how many floats its weights are, where they are no structure."""


class _Image:
    """A copy of memory, with where in it pointers are."""

    def __init__(self):
        self.content = bytearray()
        self.pointers = []

    def place(self, content):
        """Add some bytes; returns where they are."""
        self.content += bytes(-len(self.content) % ALIGNMENT)
        at = len(self.content)
        self.content += content
        return at

    def copy(self, address, count, size=4):
        """Add so many elements that lie in this process."""
        return self.place(ctypes.string_at(address, count * size) if count else b"")

    def link(self, at, target):
        """Make the pointer at a place point to another."""
        self.content[at : at + 8] = struct.pack("<q", target)
        self.pointers.append(at)

    def steps(self, steps):
        """Add steps and what they refer to; returns where they are."""
        first = self.place(b"".join(map(bytes, steps)))
        for i, step in enumerate(steps):
            self._complete(first + i * ctypes.sizeof(Step), step)
        return first

    def _complete(self, at, step):
        if step.posts:
            posts = (Post * step.posts).from_address(step.post)
            first = self.place(bytes(posts))
            self.link(at + Step.post.offset, first)
            for i, post in enumerate(posts):
                if post.channel:
                    place = first + i * ctypes.sizeof(Post) + Post.channel.offset
                    self.link(place, self.copy(post.channel, step.y.channels))
        if step.bias:
            self.link(at + Step.bias.offset, self.copy(step.bias, step.y.channels))
        if step.scale:
            self.link(at + Step.scale.offset, self.copy(step.scale, step.x.channels))
            self.link(at + Step.shift.offset, self.copy(step.shift, step.x.channels))
        if step.weights:
            self.link(at + Step.weights.offset, self._weights(step))

    def _weights(self, step):
        kernel = KERNELS[step.kernel]
        if kernel in _RAW:
            return self.copy(step.weights, _RAW[kernel](step))
        sliced = kernel == "slices" or (kernel == "recurrent" and step.options[0])
        kind, fill = (Slices, self._slices) if sliced else (Matrix, self._matrix)
        if kernel in ("direct", "dense", "winograd"):
            kind, fill = Filters, self._filters
        if kernel == "copy":
            kind, fill = Copy, self._copy
        pieces = (kind * step.pieces).from_address(step.weights)
        first = self.place(bytes(pieces))
        for i, piece in enumerate(pieces):
            for name, target in fill(piece):
                self.link(first + i * ctypes.sizeof(kind) + getattr(kind, name).offset, target)
        return first

    def _matrix(self, m):
        entries, groups, runs = _runs(m)
        yield "starts", self.copy(m.starts, m.blocks + 1)
        yield "counts", self.copy(m.counts, m.blocks)
        yield "runs", self.copy(m.runs, 2 * runs)
        yield "order", self.copy(m.order, groups)
        yield "columns", self.copy(m.columns, entries, 2)
        yield "values", self.copy(m.values, entries * m.height)

    def _copy(self, c):
        yield "axis", self.copy(c.axis, 3 * c.axes, 8)
        if c.constant:
            yield "constant", self.copy(c.constant, c.constants)

    def _filters(self, m):
        yield "values", self.copy(m.values, -(-m.rows // m.height) * m.height * m.channels * m.taps)

    def _slices(self, m):
        yield "lengths", self.copy(m.lengths, -(-m.rows // m.height))
        yield "order", self.copy(m.order, m.rows)
        yield "hops", self.copy(m.hops, m.groups * 4 // m.depth, 1)
        yield "places", self.copy(m.places, m.groups * 4 * m.height, 1)
        yield "values", self.copy(m.values, m.groups * 4 * m.height)


def _runs(m):
    """How many entries, groups and runs a matrix has."""
    runs = sum((ctypes.c_int32 * m.blocks).from_address(m.counts))
    pairs = (ctypes.c_int32 * (2 * runs)).from_address(m.runs)
    return sum(a * b for a, b in zip(pairs[::2], pairs[1::2], strict=True)), sum(pairs[1::2]), runs


def _values(step):
    """The values of a step, and whether each is channels last."""
    kernel = KERNELS[step.kernel]
    yield step.x, kernel == "load"
    yield step.y, kernel == "store"
    yield step.residual, False
    yield step.extra, False
    yield step.mask, False
    if step.posts:
        for post in (Post * step.posts).from_address(step.post):
            yield post.value, False


def _extent(value, last):
    """The floats from the beginning of a memory to the end of a value in it."""
    positions = value.samples * value.height * value.width
    floats = positions * value.channels if last or value.pitch == 1 else max(value.channels * value.pitch, positions)
    return value.offset + floats


# --- the emulated library ----------------------------------------------------------------------------------------------


class _Driver:
    """The program, running."""

    def __init__(self):
        self._process = subprocess.Popen([_emulator(), _build()], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lock = threading.Lock()
        abi, isas = struct.unpack("<2i", self._read(8))
        assert (abi, isas) == (library.ABI, NEON.bit)

    def _ask(self, image, count, *, step=-1, plan=0, memory=0, advance=0, times=0, threads=1, results=0, scratch=0):
        """Send a request, as ``native/driver.c`` has it; returns as many bytes as the answer has."""
        numbers = (len(image.content), len(image.pointers), step, plan, memory, advance, times, threads, results, scratch)
        with self._lock:
            for part in (
                struct.pack("<10q", *numbers),
                image.content,
                struct.pack(f"<{len(image.pointers)}q", *image.pointers),
            ):
                self._process.stdin.write(part)
            self._process.stdin.flush()
            return self._read(count)

    def _read(self, count):
        content = self._process.stdout.read(count)
        assert len(content) == count, f"the emulated program ended with status {self._process.wait()}"
        return content

    def scratch(self, kernels, address):
        """As ``sparsec_scratch``."""
        image = _Image()
        return struct.unpack("<q", self._ask(image, 8, step=image.steps([Step.from_address(address)])))[0]

    def run(self, address):
        """As ``sparsec_run``; a pool is how many threads it has."""
        call = Call.from_address(address)
        plan, image, times = Plan.from_address(call.plan), _Image(), call.times
        bases = (ctypes.c_void_p * plan.memories).from_address(call.memory)
        advance = (ctypes.c_int64 * plan.memories).from_address(call.advance)
        steps = (Step * plan.steps).from_address(plan.step)
        at = image.place(bytes(plan))
        image.link(at + Plan.step.offset, image.steps(steps))
        extents = [0] * plan.memories
        for step in steps:
            for value, last in _values(step):
                if value.base >= 0:
                    extents[value.base] = max(extents[value.base], _extent(value, last))
        sizes = [4 * (extent + (times - 1) * moved) for extent, moved in zip(extents, advance, strict=True)]
        sizes[0] = plan.arena
        memory = image.place(bytes(8 * plan.memories))
        advances = image.place(bytes(advance))
        # The arena is the last, since scratch memory follows it.
        places = {i: image.copy(bases[i], sizes[i], 1) for i in reversed(range(plan.memories))}
        for i, place in places.items():
            image.link(memory + 8 * i, place)
        threads, results = call.pool or 1, min(places.values())
        content = self._ask(
            image,
            len(image.content) - results,
            plan=at,
            memory=memory,
            advance=advances,
            times=times,
            threads=threads,
            results=results,
            scratch=plan.scratch * threads,
        )
        # Where the output is nowhere, pools of it are in the other value.
        for i in {step.extra.base if step.y.base < 0 else step.y.base for step in steps}:
            place = places[i]
            ctypes.memmove(bases[i], content[place - results : place - results + sizes[i]], sizes[i])


@cache
def _library():
    driver = _Driver()
    return Library(
        path=Path(__file__),
        isa=NEON,
        kernels=0,
        run=driver.run,
        scratch=driver.scratch,
        new_pool=lambda threads: threads if threads > 1 else None,
        free_pool=lambda pool: None,
        pool_threads=lambda pool: pool or 1,
        profile=_refuse,
    )


def _refuse(*_):
    raise AssertionError("how long an emulated step takes says nothing")
