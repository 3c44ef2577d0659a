"""How the native library is built where something is missing, and what it says of itself."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from sparsec.kernels import library

ROOT = Path(__file__).parents[1]
needs_library = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")


@needs_library
@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the system does not tell what the processor has")
def test_the_library_finds_what_the_processor_has():
    flags = set(Path("/proc/cpuinfo").read_text().split())
    wanted = {"avx512": {"avx512f"}, "avx2": {"avx2", "fma"}}
    expected = [isa for isa in library.status().compiled if wanted.get(isa, set()) <= flags]
    assert list(library.status().isas) == expected


# --- the build backend -------------------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """What scikit-build-core is asked for."""
    calls = []

    def record(name, answer):
        def hook(*arguments):
            calls.append((name, *arguments))
            return answer() if callable(answer) else answer

        return hook

    build = ModuleType("scikit_build_core.build")
    build.requires = []
    for name in ("sdist", "wheel", "editable"):
        setattr(build, f"build_{name}", record(f"build_{name}", name))
        setattr(build, f"get_requires_for_build_{name}", record(f"requires_{name}", lambda: list(build.requires)))
        setattr(build, f"prepare_metadata_for_build_{name}", record(f"metadata_{name}", f"{name}.dist-info"))
    package = ModuleType("scikit_build_core")
    package.build = build
    monkeypatch.setitem(sys.modules, "scikit_build_core", package)
    monkeypatch.setitem(sys.modules, "scikit_build_core.build", build)
    return calls


@pytest.fixture
def backend(calls, tmp_path, monkeypatch):
    """The backend on a machine without a compiler, where pip installs whatever it is asked for, in a folder of sources."""
    spec = importlib.util.spec_from_file_location("sparsec_build", ROOT / "build_backend" / "sparsec_build.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "sparsec_build", module)
    spec.loader.exec_module(module)
    for name in module.CHOICES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(module.platform, "system", lambda: "Linux")
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(module.platform, "libc_ver", lambda: ("glibc", "2.36"))
    (tmp_path / module.SOURCES).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    install(monkeypatch, module)
    answer_of_pip(monkeypatch, module, 0)
    return module


def install(monkeypatch, module, *names):
    """Make these the packages that are installed."""
    monkeypatch.setattr(module, "find_spec", lambda name: name if name in names else None)


def answer_of_pip(monkeypatch, module, status, *, there=True):
    asked = []

    def run(command, **_):
        assert command[:4] == [sys.executable, "-I", "-m", "pip"]
        if "--version" in command:
            return SimpleNamespace(returncode=0 if there else 1)
        asked.append([argument for argument in command if "=" in argument])
        return SimpleNamespace(returncode=status)

    monkeypatch.setattr(module.subprocess, "run", run)
    return asked


def program(name):
    path = Path("bin", name)
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


@pytest.mark.parametrize("name", ["cc", "gcc", "clang"])
def test_a_compiler_that_is_there_is_used(name, backend, calls):
    program(name)
    assert not backend.lacks_compiler()
    assert backend.get_requires_for_build_wheel() == backend.get_requires_for_build_editable() == []
    assert backend.build_wheel("out", {"a": "b"}, "meta") == "wheel"
    assert calls[-1] == ("build_wheel", "out", {"a": "b"}, "meta")


@pytest.mark.parametrize("name", ["CC", "CMAKE_TOOLCHAIN_FILE"])
def test_a_compiler_that_was_picked_is_left_to_cmake(name, backend, monkeypatch):
    monkeypatch.setenv(name, "anything")
    assert backend.get_requires_for_build_wheel() == []


@pytest.mark.parametrize(("system", "machine"), [("Windows", "AMD64"), ("Darwin", "arm64"), ("Linux", "s390x")])
def test_zig_is_not_offered_where_it_was_not_tried(system, machine, backend, monkeypatch):
    monkeypatch.setattr(backend.platform, "system", lambda: system)
    monkeypatch.setattr(backend.platform, "machine", lambda: machine)
    assert not backend.lacks_compiler()


@pytest.mark.parametrize(
    ("machine", "libc", "target"),
    [
        ("x86_64", "glibc", "x86_64-linux-gnu.2.17"),
        ("arm64", "glibc", "aarch64-linux-gnu.2.17"),
        ("AMD64", "", "x86_64-linux-musl"),
    ],
)
def test_the_target_of_zig(machine, libc, target, backend, monkeypatch):
    monkeypatch.setattr(backend.platform, "machine", lambda: machine)
    monkeypatch.setattr(backend.platform, "libc_ver", lambda: (libc, ""))
    assert backend.zig_target() == target


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_what_is_missing_is_asked_for_together(kind, backend, calls, monkeypatch):
    sys.modules["scikit_build_core.build"].requires = ["cmake>=3.18"]
    asked = answer_of_pip(monkeypatch, backend, 0)
    assert getattr(backend, f"get_requires_for_build_{kind}")() == ["cmake>=3.18", backend.ZIG]
    assert asked == [["cmake>=3.18", backend.ZIG]]
    # What is installed is not asked for again.
    install(monkeypatch, backend, "cmake")
    asked.clear()
    backend.get_requires_for_build_wheel()
    assert asked == [[backend.ZIG]]


def test_nothing_is_asked_for_that_cannot_be_had(backend, monkeypatch, capsys):
    answer_of_pip(monkeypatch, backend, 1)
    assert backend.get_requires_for_build_wheel() == []
    assert capsys.readouterr().err == f"pip cannot install {backend.ZIG}: sparsec is built without its native library\n"


def test_without_pip_the_front_end_is_asked(backend, monkeypatch):
    answer_of_pip(monkeypatch, backend, 1, there=False)
    assert backend.get_requires_for_build_wheel() == [backend.ZIG]


def test_without_what_is_needed_the_library_is_left_out(backend, calls, capsys):
    sys.modules["scikit_build_core.build"].requires = ["cmake>=3.18", "ninja>=1.5"]
    backend.prepare_metadata_for_build_wheel("meta")
    backend.build_wheel("out")
    backend.prepare_metadata_for_build_editable("meta")
    backend.build_editable("out")
    made = [call for call in calls if not call[0].startswith("requires")]
    assert [call[0] for call in made] == ["metadata_wheel", "build_wheel", "metadata_editable", "build_editable"]
    assert all(call[2] == {"wheel.cmake": "false"} for call in made)
    text = "there is no cmake and no ninja and no ziglang: sparsec is built without its native library\n"
    assert capsys.readouterr().err == 4 * text


def test_zig_is_given_to_cmake_as_one_file(backend, monkeypatch):
    install(monkeypatch, backend, "ziglang")
    with backend.settings_for_this_machine({"cmake.verbose": "true"}) as settings:
        compiler = Path(settings["cmake.define.CMAKE_C_COMPILER"])
        assert settings["cmake.verbose"] == "true"
        assert os.access(compiler, os.X_OK)
        shell, command = compiler.read_text().splitlines()
    assert shell == "#!/bin/sh"
    assert command == f'exec {sys.executable} -m ziglang cc -target x86_64-linux-gnu.2.17 "$@"'
    assert not compiler.exists()
    with backend.settings_for_this_machine({"cmake.define.CMAKE_C_COMPILER": "mine"}) as settings:
        assert settings == {"cmake.define.CMAKE_C_COMPILER": "mine"}


@pytest.mark.parametrize("zig", [True, False])
def test_cmake_forgets_a_compiler_of_one_build(zig, backend, monkeypatch):
    install(monkeypatch, backend, "ziglang")
    if not zig:
        program("cc")
    cache, folder = backend.SOURCES / "CMakeCache.txt", backend.SOURCES / "CMakeFiles"
    cache.touch()
    folder.mkdir()
    backend.build_editable("out")
    assert cache.exists() == folder.exists() == (not zig)


def test_archives_of_sources_are_scikit_build_core_s(backend, calls):
    assert backend.get_requires_for_build_sdist() == []
    assert backend.build_sdist("out") == "sdist"
    assert [call[0] for call in calls] == ["requires_sdist", "build_sdist"]


# --- whole builds ------------------------------------------------------------------------------------------------------

REPORT = """
import json, numpy as np
from sparsec.kernels import library
print(json.dumps({"isas": library.status().isas, "compiler": library.status().compiler}))
"""


def pip(*arguments, **environment):
    """Run pip where only a shell can be found."""
    return subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        env={**{name: value for name, value in os.environ.items() if name not in ("CC", "PYTHONPATH")}, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def bare(tmp_path):
    """A folder of programs in which there is no compiler, no CMake and no Ninja."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "sh").symlink_to(shutil.which("sh"))
    return str(folder)


def wheel(tmp_path, **environment):
    """Build a wheel; its name, its members, and what the library in it says."""
    done = pip("wheel", "--no-deps", "--wheel-dir", str(tmp_path / "wheels"), str(ROOT), **environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (path,) = (tmp_path / "wheels").iterdir()
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "installed")
        members = archive.namelist()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    environment = {name: value for name, value in environment.items() if not name.startswith("SPARSEC_")}
    done = subprocess.run([sys.executable, "-P", "-c", REPORT], env=environment, capture_output=True, text=True, check=True)
    native = [name for name in members if name.startswith("sparsec/kernels/native/")]
    return path.name, native, json.loads(done.stdout)


@pytest.mark.slow
def test_a_machine_without_a_compiler(tmp_path, bare):
    wanted = ("ziglang", "cmake", "ninja", "scikit-build-core")
    if pip("install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet", *wanted).returncode:
        pytest.skip(f"pip cannot install {', '.join(wanted)}")
    name, native, report = wheel(tmp_path, PATH=bare)
    assert "-py3-none-linux_" in name
    assert native == ["sparsec/kernels/native/libsparsec_native.so"]
    assert report["compiler"].startswith("clang ")
    assert set(library.status().isas) <= set(report["isas"])


@pytest.mark.slow
def test_a_machine_without_anything(tmp_path, bare):
    links = tmp_path / "links"
    if pip("download", "--quiet", "--dest", str(links), "scikit-build-core>=0.10,<1").returncode:
        pytest.skip("pip cannot download scikit-build-core")
    offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links)}
    name, native, report = wheel(tmp_path, PATH=bare, **offline)
    assert name.endswith("-py3-none-any.whl")
    assert native == []
    assert report == {"isas": [], "compiler": ""}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler")
def test_a_machine_with_a_compiler(tmp_path):
    if pip("install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet", "scikit-build-core>=0.10,<1").returncode:
        pytest.skip("pip cannot install scikit-build-core")
    name, native, report = wheel(tmp_path)
    assert "-py3-none-" in name
    assert [Path(member).stem for member in native] == ["libsparsec_native"]
    assert report["isas"]
