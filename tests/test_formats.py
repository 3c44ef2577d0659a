"""The pages in formats/ and the code say the same: encodings, operators, manifest, golden bundles, an independent reader."""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from bundles import npy, repack, small_bundle, small_program, unpack

from sparsec.bundle import content_digest, limits, read_bundle
from sparsec.bundle.manifest import from_json, to_json
from sparsec.encodings import LEVELS, POSITIONS, VALUES, StoredTensor, check_stored, decode, encode
from sparsec.errors import FormatError
from sparsec.ops import OPS, Kind, evaluate_graph
from sparsec.ops.activations import CELL_ACTIVATIONS

FORMATS = Path(__file__).parents[1] / "formats"
GOLDEN = FORMATS / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


def independent_reader():
    spec = importlib.util.spec_from_file_location("independent_reader", FORMATS / "read_bundle.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


READER = independent_reader()


# --- encodings.md -----------------------------------------------------------------------------------------------------

PAGE = (FORMATS / "encodings.md").read_text()
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


def example_tensor(example):
    data = np.zeros(example["shape"]) if example["tensor"] == "zeros" else np.array(example["tensor"], np.float64)
    return data.reshape(example["shape"]).astype(example["dtype"])


def example_parts(example):
    return {name: np.array(part["data"], part["dtype"]) for name, part in example["parts"].items()}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["example"])
def test_worked_examples(example):
    array, parts = example_tensor(example), example_parts(example)
    rows = tuple(example["rows"])
    stored = StoredTensor(array.shape, example["dtype"], rows, example["positions"], example["values"], parts)
    check_stored(stored)
    assert decode(stored).dtype == array.dtype
    assert decode(stored).tobytes() == array.tobytes()
    encoded = encode(array, rows, example["positions"], example["values"])
    assert list(encoded.arrays) == list(parts)
    for name, part in parts.items():
        assert encoded.arrays[name].dtype == part.dtype
        assert encoded.arrays[name].tobytes() == part.tobytes()
    assert READER.decode(example, parts).tobytes() == array.tobytes()


def test_every_encoding_has_a_worked_example_and_a_row():
    assert {example["positions"] for example in EXAMPLES} == set(POSITIONS)
    assert {example["values"] for example in EXAMPLES} == set(VALUES)
    rows = {cells[0]: cells[1] for cells in table_rows(PAGE)}
    for name, positions in POSITIONS.items():
        assert re.findall(r"`(\w+)`", rows[f"`{name}`"]) == list(positions.dtypes)
    assert rows["`raw`"] == "`values`"
    assert rows["`planes`"] == "`plane0`, `plane1`, ..."
    assert rows.keys() == {f"`{name}`" for name in (*POSITIONS, *VALUES)} | {"positions", "values"}


def table_rows(page):
    """The rows of all tables of a page, as lists of cells."""
    lines = [line for line in page.splitlines() if line.startswith("|") and not set(line) <= set("|- ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


# --- operators.md -----------------------------------------------------------------------------------------------------

KINDS = {
    Kind.BOOL: "bool",
    Kind.INT: "int",
    Kind.FLOAT: "float",
    Kind.OPTIONAL_FLOAT: "float or null",
    Kind.INTS: "list of int",
}


def test_operators_page_names_the_operators_inputs_and_attributes_of_the_code():
    page = {}
    for op, inputs, attributes, result in table_rows((FORMATS / "operators.md").read_text()):
        if op != "op":
            assert result
            page[op.strip("`")] = (re.findall(r"`([^`]+)`", inputs), dict(re.findall(r"`(\w+)`: ([\w ]+)", attributes)))
    code = {}
    for name, op in OPS.items():
        code[name] = (list(op.inputs), {key: kind_of(attribute) for key, attribute in op.attributes.items()})
    assert page == code


def kind_of(attribute):
    if attribute.choices == tuple(CELL_ACTIVATIONS):
        return "activation"
    return " or ".join(attribute.choices) if attribute.choices else KINDS[attribute.kind]


def test_operators_page_lists_the_activations_of_recurrent_operators():
    page = (FORMATS / "operators.md").read_text().partition("**Activations.**")[2].partition("\n## ")[0]
    names = [
        name for line in page.splitlines() if line.startswith("- ") for name in re.findall(r"`(\w+)`", line.partition(":")[0])
    ]
    assert sorted(names) == sorted(CELL_ACTIVATIONS)


# --- bundle.md and the schema -----------------------------------------------------------------------------------------


def test_limits_of_the_page_are_those_of_the_code():
    page = (FORMATS / "bundle.md").read_text()
    numbers = [cells[1] for cells in table_rows(page[page.index("## Limits") : page.index("## What a reader checks")])]
    stated = {eval(n.replace("^", "**").replace(" ", "")) for n in numbers if re.fullmatch(r"[\d ^-]+", n)}
    code = {
        limits.MAX_FILE_BYTES,
        limits.MAX_MEMBERS,
        limits.MAX_DIRECTORY_BYTES,
        limits.MAX_MANIFEST_BYTES,
        limits.MAX_JSON_DEPTH,
        limits.MAX_RANK,
        limits.MAX_ELEMENTS,
        limits.MAX_SELFCHECK_ELEMENTS,
        limits.MAX_SELFCHECK_VALUES,
    }
    assert stated == code
    assert f"{limits.MAX_DEFLATE_RATIO} times, plus 2^18" in numbers
    assert f"2^31 + {limits.MAX_EXPANSION} times the file, each" in numbers
    assert limits.FREE_BYTES == 2**31
    assert f"{limits.MAX_NAME_LENGTH} characters" in numbers
    assert f"{limits.MAX_PORTS} each" in numbers
    assert "100 000 each" in numbers
    assert limits.MAX_NODES == limits.MAX_TENSORS == 100_000


SCHEMA = json.loads((FORMATS / "manifest.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
VALID = {level: unpack(small_bundle(level))[0] for level in LEVELS} | {
    name: READER.read(str(GOLDEN / name))[0] for name in EXPECTED
}


def accepted_by_code(manifest):
    try:
        from_json(manifest)
    except FormatError:
        return False
    return True


def test_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", VALID)
def test_schema_and_code_accept_what_is_written(name):
    VALIDATOR.validate(VALID[name])
    manifest = from_json(VALID[name])
    assert json.loads(json.dumps(to_json(manifest))) == VALID[name]


# One of everything: the number of places to change stays small.
SAMPLE = {
    "format": "sparsec-bundle",
    "version": 1,
    "sparsec": "0.1.0",
    "level": "plain",
    "name": "model",
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["N", 4]}],
    "outputs": [{"name": "y", "value": "v"}],
    "nodes": [{"op": "relu", "name": "n", "layer": "", "inputs": ["x"], "outputs": ["v"], "attributes": {"a": 1, "b": [2]}}],
    "tensors": [
        {
            "name": "w",
            "dtype": "float32",
            "shape": [4, 2],
            "rows": [1],
            "positions": "dense",
            "values": "raw",
            "parts": {"values": ["float32.npy", 0, 8]},
        }
    ],
    "options": {},
    "source": {"sha256": "0" * 64},
    "report": {},
    "selfcheck": {
        "seed": 1,
        "tolerance": 0.5,
        "inputs": [{"dtype": "float32", "shape": [1, 4], "low": -1.5, "high": 1}],
        "outputs": [{"shape": [1, 2], "scale": 1, "values": [0.5]}],
    },
}


def places(value, path=()):
    """The paths of all values inside a JSON value; of lists only the first entry."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:1]):
            yield from places(item, (*path, index))


def mutated(manifest, path, value):
    if not path:
        return value
    manifest = copy.deepcopy(manifest)
    place = manifest
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return manifest


# Floats that are whole numbers are missing: for a schema they are integers.
REPLACEMENTS = [
    ..., None, True, False, 0, 1, 2, 7, 8, -1, 2**31 - 1, 2**31, 2**53 - 1, 2**53, -(2**53), 10**400, 0.5, -0.5,
    "", "x", "N", "2H", "N " * 40, "float32", "stored", "a.npy", "a/b.npy", ".npy", "f" * 64, "F" * 64, "x" * 1024, "x" * 1025,
    [], [0], [1], [-1], ["N"], ["x", "x"], [1, 2, 3], ["a.npy", 0, 0], ["a.npy", 0, 0, 0], ["a.npy", 0.5, 0], [[]], [{}],
    [1] * 8, [1] * 9, [1] * 1001, ["x"] * 1001, {}, {"x": 1}, {"sha256": "0" * 64}, {"name": "x", "value": "y"}, {"a": [0.5]},
]  # fmt: skip


@pytest.mark.parametrize("path", places(SAMPLE), ids=lambda path: ".".join(map(str, path)) or "all")
def test_schema_and_code_accept_and_refuse_the_same_manifests(path):
    present = value_at(SAMPLE, path)
    changes = [value for value in REPLACEMENTS if path or value is not ...]
    if isinstance(present, dict):
        changes.append({**present, "surplus": 1})
    verdicts = set()
    for value in changes:
        manifest = mutated(SAMPLE, path, value)
        verdicts.add(VALIDATOR.is_valid(manifest))
        assert accepted_by_code(manifest) == VALIDATOR.is_valid(manifest), value
    assert False in verdicts


def value_at(value, path):
    for key in path:
        value = value[key]
    return value


# --- golden bundles ---------------------------------------------------------------------------------------------------


def test_every_golden_file_is_expected_and_every_level_has_one():
    assert {path.name for path in GOLDEN.glob("*.npz")} == set(EXPECTED)
    assert {read_bundle(GOLDEN / name).meta.level for name in EXPECTED} == set(LEVELS)


@pytest.mark.parametrize("name", EXPECTED)
def test_golden_bundles_read_as_they_always_did(name):
    bundle = read_bundle(GOLDEN / name)
    assert content_digest(bundle.program) == EXPECTED[name]["digest"]
    selfcheck = bundle.meta.selfcheck
    graph = bundle.program.graph()
    outputs = evaluate_graph(graph, selfcheck.make_inputs(), dtype="float64")
    for output, expected in zip(outputs, EXPECTED[name]["outputs"], strict=True):
        assert np.allclose(output.reshape(-1), expected, rtol=1e-7, atol=1e-9)
    assert selfcheck.compare(evaluate_graph(graph, selfcheck.make_inputs())).passed


@pytest.mark.parametrize("name", EXPECTED)
def test_independent_reader_agrees(name):
    manifest, tensors = READER.read(str(GOLDEN / name))
    bundle = read_bundle(GOLDEN / name)
    assert READER.content_digest(manifest, tensors) == EXPECTED[name]["digest"]
    assert list(tensors) == list(bundle.program.tensors)
    for path, stored in bundle.program.tensors.items():
        assert tensors[path].dtype == np.dtype(stored.dtype)
        assert tensors[path].tobytes() == decode(stored).tobytes()
    for ours, theirs in zip(bundle.meta.selfcheck.make_inputs(), READER.selfcheck_inputs(manifest["selfcheck"]), strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("level", LEVELS)
def test_independent_reader_reads_every_encoding(positions, values, level):
    program = small_program(positions, values)
    manifest, tensors = READER.read(io.BytesIO(small_bundle(level, positions=positions, values=values)))
    assert READER.content_digest(manifest, tensors) == content_digest(program)


def test_independent_reader_stands_alone_and_is_short():
    source = (FORMATS / "read_bundle.py").read_text()
    assert len(source.splitlines()) < 200
    imported = set(re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE))
    assert imported - set(sys.stdlib_module_names) == {"numpy"}


def test_independent_reader_lists_tensors():
    command = [sys.executable, str(FORMATS / "read_bundle.py"), str(GOLDEN / "dense.plain.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search(r"^hidden/kernel +float32 +\[24, 40\] +bitmap planes +\d+ nonzeros$", done.stdout, re.MULTILINE)
    assert EXPECTED["dense.plain.npz"]["digest"] in done.stdout


def test_independent_reader_refuses_wrong_indices():
    manifest, members = unpack(small_bundle("stored"))
    entry = next(tensor for tensor in manifest["tensors"] if tensor["name"] == "hidden/kernel")
    _, _, count = entry["parts"]["indices"]
    entry["parts"]["indices"] = ["wrong.npy", 0, count]
    with pytest.raises(ValueError, match="outside of the view"):
        READER.read(io.BytesIO(repack(manifest, {**members, "wrong.npy": npy(np.full(count, 200, np.uint8))})))
