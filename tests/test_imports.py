"""Dependencies between modules point one way, heavy packages are imported where they are used, public names are there."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sparsec

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sparsec"

HELPERS = {"errors", "extras", "files"}
CORE = {*HELPERS, "ir", "ops"}
PORTABLE = {*CORE, "encodings", "program", "bundle"}
COMPILING = {
    *PORTABLE,
    "heap",
    "shapes",
    "text",
    "quiet",
    "arrays",
    "sampling",
    "comparison",
    "executors",
    "layers",
    "record",
    "inspection",
    "verification",
}
STAGES = {"frontends", "passes", "lowering", "backends", "kernels", "engine", "runtime"}

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "heap": set(),
    "text": set(),
    "extras": {"errors"},
    "files": {"errors"},
    "quiet": {"errors", "extras"},
    "ir": {"errors"},
    "shapes": {"errors", "ir"},
    "comparison": {"errors", "ir"},
    "arrays": {"errors", "files", "ir"},
    "ops": {"errors", "ir"},
    "encodings": {"errors", "ir"},
    "sampling": {"errors", "ir", "ops"},
    "frontends": {*CORE, "shapes"},
    "passes": CORE,
    "program": {"errors", "ir", "encodings"},
    "bundle": {*CORE, "encodings", "program"},
    "backends": {*PORTABLE, "frontends", "passes"},
    "lowering": {"errors", "ir", "ops", "encodings", "program"},
    "kernels": {*CORE, "encodings"},
    "processor": set(),
    "engine": {*CORE, "encodings", "kernels", "processor"},
    "runtime": {*PORTABLE, "kernels", "engine"},
    "executors": {*CORE, "quiet", "frontends", "backends", "runtime"},
    "layers": {*PORTABLE, "lowering"},
    "record": {*PORTABLE, "lowering", "layers", "passes"},
    "inspection": {*PORTABLE, "frontends", "passes", "lowering", "layers", "record"},
    "profiling": {*PORTABLE, "sampling", "kernels", "engine", "runtime"},
    "verification": {*COMPILING, *STAGES},
    "compiler": {*COMPILING, *STAGES},
    "pruning": {*CORE, "frontends", "passes"},
    "bench": {*CORE, "processor", "quiet", "arrays", "comparison", "sampling", "frontends", "runtime", "bundle"},
    "bench_table": {"bench", "text"},
    "demo": {*COMPILING, *STAGES, "compiler", "pruning", "bench", "bench_table"},
    "cli": {*COMPILING, *STAGES, "profiling", "compiler", "pruning", "bench", "bench_table", "demo"},
    "__main__": {"cli"},
}
"""What each module or package of sparsec may import from the others; the package itself gives its version to all."""

PUBLIC_API = {"errors", "backends", "compiler", "pruning", "runtime", "verification"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
AT_HOME = {"cli": {"typer", "rich"}, "bench/worker.py": {"psutil"}}
"""Third-party packages beside numpy that may be imported when a module is, not only when it is used; the worker is a script."""


def unit(path):
    """The module or package directly below ``sparsec`` that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree):
    """The names of all modules that a file imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_at_once(tree):
    """The names of the modules that are imported when the file is: not inside functions, not for type checkers alone."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported(ast.Module([node], []))


def parse(path):
    return ast.parse(path.read_text(), str(path))


def inside(names):
    """The units of sparsec among imported names; the package itself is left out."""
    return {name.split(".")[1] for name in names if name.startswith("sparsec.") and name.split(".")[1] in MAY_IMPORT}


def test_every_module_has_a_rule():
    assert {unit(path) for path in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_dependencies_point_one_way(path):
    allowed = MAY_IMPORT[unit(path)] | {unit(path)}
    assert inside(imported(parse(path))) <= allowed


def test_rules_have_no_cycle():
    order: list[str] = []

    def visit(name, above):
        assert name not in above, f"{' -> '.join((*above, name))}"
        if name not in order:
            for other in sorted(MAY_IMPORT[name] - {name}):
                visit(other, (*above, name))
            order.append(name)

    for name in ("cli", "__main__", "errors"):
        visit(name, ())
    assert set(order) == set(MAY_IMPORT)


def test_the_package_itself_imports_errors_alone():
    tree = parse(PACKAGE / "__init__.py")
    assert inside(imported(tree)) == PUBLIC_API
    assert inside(imported_at_once(tree)) == {"errors"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_where_they_are_used(path):
    at_once = {name.partition(".")[0] for name in imported_at_once(parse(path))}
    foreign = at_once - sys.stdlib_module_names - {"sparsec", "numpy", "__future__"}
    assert foreign <= AT_HOME.get(unit(path), set()) | AT_HOME.get(path.relative_to(PACKAGE).as_posix(), set())


def modules_after(statement):
    """The top-level modules that are loaded once a fresh interpreter has run a statement."""
    code = f"{statement}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


HEAVY = {"tensorflow", "keras", "h5py", "onnx", "onnxruntime", "scipy", "matplotlib", "psutil", "typer", "rich"}


def test_importing_sparsec_loads_nothing_heavy():
    assert not modules_after("import sparsec") & HEAVY


def test_compiling_loads_no_framework(tmp_path):
    source = ROOT / "tests" / "frozen" / "keras-3.15.1" / "lenet.keras"
    loaded = modules_after(f"import sparsec; sparsec.compile({str(source)!r}).save({str(tmp_path / 'a.npz')!r})")
    assert not loaded & (HEAVY - {"h5py", "scipy"})


def test_starting_the_command_line_loads_no_framework():
    assert not modules_after("import sparsec.cli.app") & (HEAVY - {"typer", "rich"})


def test_public_names():
    assert set(sparsec._HOMES) | {"__version__"} <= set(sparsec.__all__)
    for name in sparsec.__all__:
        assert getattr(sparsec, name) is not None
        assert name in dir(sparsec)
    assert callable(sparsec.compile)
    assert all(issubclass(getattr(sparsec, name), sparsec.SparsecError) for name in sparsec.__all__ if name.endswith("Error"))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sparsec.nothing  # noqa: B018
