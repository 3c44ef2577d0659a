"""The build backend: scikit-build-core's, for machines that lack what builds the native library.

scikit-build-core itself asks for CMake and Ninja from PyPI where they are missing. Where there is no C compiler either, this
asks for ``ziglang``, which has one. What cannot be had keeps nobody from installing sparsec: the wheel is then built without
the library, for any platform, and sparsec runs on NumPy and SciPy.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from scikit_build_core import build as inner

Settings = Mapping[str, list[str] | str] | None

COMPILERS: Final = ("cc", "gcc", "clang")
CHOICES: Final = ("CC", "CMAKE_TOOLCHAIN_FILE")
"""The environment variables by which one picks a compiler for CMake."""

ZIG: Final = "ziglang>=0.13"
MACHINES: Final = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
"""Processors for which zig compiles the library, by the names that systems have for them."""

SOURCES: Final = Path("sparsec", "kernels", "native")

build_sdist = inner.build_sdist
get_requires_for_build_sdist = inner.get_requires_for_build_sdist


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """What has to be installed to build a wheel, of what can be."""
    return _obtainable(_needed(config_settings))


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    """What has to be installed for an editable installation, of what can be."""
    return _obtainable(_needed(config_settings))


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Settings = None) -> str:
    """Write the metadata of the wheel that is going to be built."""
    with settings_for_this_machine(config_settings) as settings:
        return str(inner.prepare_metadata_for_build_wheel(metadata_directory, settings))


def prepare_metadata_for_build_editable(metadata_directory: str, config_settings: Settings = None) -> str:
    """Write the metadata of the editable installation that is going to be built."""
    with settings_for_this_machine(config_settings) as settings:
        return str(inner.prepare_metadata_for_build_editable(metadata_directory, settings))


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """Build a wheel, with the native library where that can be built."""
    with settings_for_this_machine(config_settings) as settings:
        return str(inner.build_wheel(wheel_directory, settings, metadata_directory))


def build_editable(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """Build an editable installation, with the native library among the sources where that can be built."""
    with settings_for_this_machine(config_settings) as settings, _without_traces_of(settings):
        return str(inner.build_editable(wheel_directory, settings, metadata_directory))


@contextmanager
def settings_for_this_machine(given: Settings) -> Iterator[dict[str, Any]]:
    """The settings for scikit-build-core, with whatever they name there as long as the context lasts.

    What the user gave comes first.
    """
    settings = dict(given or {})
    absent = _absent(_needed(given))
    if absent:
        _say(f"there is no {' and no '.join(map(_name, absent))}")
        yield {"wheel.cmake": "false", **settings}
    elif lacks_compiler():
        with tempfile.TemporaryDirectory() as folder:
            yield {"cmake.define.CMAKE_C_COMPILER": str(launcher(Path(folder))), **settings}
    else:
        yield settings


def lacks_compiler() -> bool:
    """Whether there is no C compiler, and none was picked, where zig brings one."""
    return not (any(map(os.environ.get, CHOICES)) or any(map(shutil.which, COMPILERS))) and bool(zig_target())


def zig_target() -> str:
    """What zig is to compile for; ``""`` where it has not been tried.

    Naming the target keeps zig from using whatever else this processor has; so old a C library is the same in all newer ones.
    """
    machine = MACHINES.get(platform.machine().lower())
    if platform.system() != "Linux" or machine is None:
        return ""
    return f"{machine}-linux-{'gnu.2.17' if platform.libc_ver()[0] == 'glibc' else 'musl'}"


def launcher(folder: Path) -> Path:
    """Write the compiler as one file, which is what CMake takes."""
    command = [sys.executable, "-m", "ziglang", "cc", "-target", zig_target()]
    path = folder / "zig-cc"
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    path.chmod(0o755)
    return path


def _needed(config_settings: Settings) -> list[str]:
    """What the native library needs that the machine lacks, as requirements of packages."""
    return [*inner.get_requires_for_build_wheel(config_settings), *([ZIG] if lacks_compiler() else [])]


def _absent(requirements: list[str]) -> list[str]:
    """Those of which the package is not installed."""
    return [requirement for requirement in requirements if find_spec(_name(requirement)) is None]


def _obtainable(requirements: list[str]) -> list[str]:
    """All of them; or none, if one is neither installed nor to be had, without which the others are of no use.

    One that the build's front-end does not find would be the end of the installation. So pip is asked, outside of the isolated
    environment of the build, where it cannot be seen. Without pip the front-end is another one, which is given a try.
    """
    absent = _absent(requirements)
    if not absent or not _pip("--version"):
        return requirements
    if _pip("install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--retries", "1", *absent):
        return requirements
    _say(f"pip cannot install {' and '.join(absent)}")
    return []


def _pip(*arguments: str) -> bool:
    """Whether pip is there and does that."""
    command = [sys.executable, "-I", "-m", "pip", *arguments]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 - as the build itself would


def _name(requirement: str) -> str:
    """The name of the package, and of its module."""
    return re.split(r"[^\w]", requirement, maxsplit=1)[0]


@contextmanager
def _without_traces_of(settings: dict[str, Any]) -> Iterator[None]:
    """Keep CMake from remembering, among the sources, a compiler that is there for this build alone."""
    passing = "cmake.define.CMAKE_C_COMPILER" in settings
    if passing:
        _forget()
    try:
        yield
    finally:
        if passing:
            _forget()


def _forget() -> None:
    (SOURCES / "CMakeCache.txt").unlink(missing_ok=True)
    shutil.rmtree(SOURCES / "CMakeFiles", ignore_errors=True)


def _say(why: str) -> None:
    sys.stderr.write(f"{why}: sparsec is built without its native library\n")
