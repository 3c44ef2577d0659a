"""Loading and running a bundle needs NumPy alone, uses SciPy where it is there, and imports nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sparsec.bundle import BundleMeta, make_selfcheck, write_bundle
from sparsec.ir import BATCH, Graph, Input, Port, TensorType, symbol
from sparsec.kernels import library
from sparsec.lowering import lower
from sparsec.ops import evaluate_graph, make_node

ROOT = Path(__file__).parent.parent
FOREIGN = ("tensorflow", "keras", "tf_keras", "h5py", "onnx", "onnxruntime", "typer", "rich", "psutil", "matplotlib")

SCRIPT = """
import json, sys, warnings
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

bundle, inputs, outputs, *allowed = sys.argv[1:]

class Installed:
    '''Finds the standard library, sparsec and what is allowed: everything else is as if it were not installed.'''

    @staticmethod
    def find_spec(name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top.startswith("_sysconfigdata") or top in ("sparsec", *allowed):
            return PathFinder.find_spec(name, path, target)
        return None

if allowed:
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Installed]

import sparsec
import numpy as np

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = sparsec.load(bundle, check=True)
    y = model(np.load(inputs))
np.save(outputs, y)
kernels = sorted({step.kernel for step in model.plan(len(y))})
print(json.dumps({
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
    "kernels": kernels,
    "warnings": [str(w.message) for w in caught],
}))
"""


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A network with one of everything that has a kernel, and with operators that SciPy helps to evaluate."""
    folder = tmp_path_factory.mktemp("minimal")
    rng = np.random.default_rng(0)

    def sparse(*shape):
        weight = rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]) * 0.05)
        return np.where(rng.random(shape) < 0.95, 0, weight).astype("float32")

    window = {"strides": (1, 1), "dilations": (1, 1), "padding": "same"}
    nodes = [
        make_node("conv", "c", ["x", "c/kernel"], ["c"], **window),
        make_node("gelu", "g", ["c"], ["g"]),
        make_node("depthwise_conv", "w", ["g", "w/kernel"], ["w"], **window),
        make_node("conv_transpose", "t", ["w", "t/kernel"], ["t"], strides=(2, 2), dilations=(1, 1), crops=(0, 0, 0, 0)),
        make_node("reduce_mean", "m", ["t"], ["m"], axes=(1, 2)),
        make_node("dense", "wide", ["m", "wide/kernel"], ["wide"]),
        make_node("dense", "d", ["wide", "d/kernel", "d/bias"], ["d"]),
        make_node("softmax", "s", ["d"], ["s"]),
    ]
    weights = {
        "c/kernel": sparse(3, 3, 4, 64),
        "w/kernel": rng.standard_normal((3, 3, 64, 1)).astype("float32"),
        "t/kernel": sparse(2, 2, 64, 64),
        "wide/kernel": np.where(rng.random((64, 4000)) < 0.99, 0, 1).astype("float32"),
        "d/kernel": (rng.standard_normal((4000, 5)) / 50).astype("float32"),
        "d/bias": rng.standard_normal(5).astype("float32"),
    }
    inputs = (Input("x", TensorType("float32", (symbol(BATCH), 8, 8, 4))),)
    graph = Graph(inputs, (Port("y", "s"),), tuple(nodes), weights)
    write_bundle(folder / "m.npz", lower(graph), meta=BundleMeta(selfcheck=make_selfcheck(graph)))
    x = rng.standard_normal((3, 8, 8, 4)).astype("float32")
    np.save(folder / "x.npy", x)
    return folder, evaluate_graph(graph, [x])[0]


def run(case, *allowed, isa="none"):
    folder, expected = case
    paths = [str(folder / name) for name in ("m.npz", "x.npy", "y.npy")]
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, *paths, *allowed],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SPARSEC_ISA": isa},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(folder / "y.npy"), expected, atol=1e-6)
    return json.loads(done.stdout)


@pytest.mark.parametrize("allowed", [(), ("numpy", "scipy")], ids=["everything installed", "numpy and scipy"])
def test_running_imports_numpy_and_scipy_alone(case, allowed):
    found = run(case, *allowed)
    assert not set(found["modules"]) & set(FOREIGN)
    assert found["warnings"] == []
    assert "dense/csr" in found["kernels"]


def test_running_with_numpy_alone_says_that_it_is_slower(case):
    found = run(case, "numpy")
    assert "scipy" not in found["modules"]
    assert not any(kernel.endswith("/csr") for kernel in found["kernels"])
    assert found["warnings"] == ["scipy is not installed: sparse weights run as dense ones, slower"]


@pytest.mark.skipif(not library.status().isas, reason="the native library was not built")
def test_native_kernels_run_with_numpy_alone(case):
    found = run(case, "numpy", isa="")
    assert "scipy" not in found["modules"]
    assert any(name.startswith("native/") for name in found["kernels"])
    assert all("native" not in text for text in found["warnings"])


def test_importing_sparsec_imports_no_installed_package():
    script = "import sys; before = set(sys.modules); import sparsec; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    tops = {name.partition(".")[0] for name in done.stdout.split()}
    assert "sparsec" in tops
    assert tops <= {"sparsec", *sys.stdlib_module_names}
