"""Hostile bundles: every damage and every lie is one FormatError of one line, and nothing else ever escapes."""

from __future__ import annotations

import copy
import io
import json
import struct
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from bundles import npy, patched, repack, small_bundle, unpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparsec.bundle import limits, read_bundle
from sparsec.bundle.json_text import parse
from sparsec.encodings import decode
from sparsec.errors import FormatError, SparsecError
from sparsec.ops import OPS

STORED = small_bundle("stored")
PLAIN = small_bundle("plain")
MANIFEST, MEMBERS = unpack(STORED)


def refuse(data, message="."):
    with pytest.raises(FormatError, match=message) as caught:
        read_bundle(data)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


def changed(path, value):
    """The manifest with the value at a path of keys and indices replaced, or removed where it is ``...``."""
    manifest = copy.deepcopy(MANIFEST)
    *parents, last = path
    place = manifest
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return manifest


def tensor_index(name):
    return next(index for index, tensor in enumerate(MANIFEST["tensors"]) if tensor["name"] == name)


KERNEL = tensor_index("hidden/kernel")


def test_the_samples_themselves_are_read():
    read_bundle(STORED)
    read_bundle(PLAIN)
    read_bundle(repack(MANIFEST, MEMBERS))
    read_bundle(repack(MANIFEST, MEMBERS, zipfile.ZIP_DEFLATED))


# --- the container ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"P", b"PK\x05\x06", b"not a zip at all" * 100, b"\x00" * 1000])
def test_what_is_no_zip(data):
    refuse(data, "not a zip|end of the zip")


@pytest.mark.parametrize("sample", [STORED, PLAIN], ids=["stored", "plain"])
def test_every_truncation(sample):
    for length in [*range(0, len(sample), 37), len(sample) - 1]:
        refuse(sample[:length])


def test_other_zips():
    refuse(repack({}, {}), "format")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", "{}")
    refuse(file.getvalue(), "no member 'manifest.json'")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("manifest.json", json.dumps(MANIFEST))
        for name, content in MEMBERS.items():
            archive.writestr(name, content, zipfile.ZIP_LZMA)
    refuse(file.getvalue(), "compression method 14")


def test_prepended_and_appended_bytes():
    refuse(b"#!/bin/sh\n" + STORED)
    refuse(STORED + b"more")


def directory_fields(data):
    """The positions of the central headers of a zip."""
    start = struct.unpack_from("<I", data, data.rfind(b"PK\x05\x06") + 16)[0]
    at, found = start, []
    while data[at : at + 4] == b"PK\x01\x02":
        found.append(at)
        at += 46 + sum(struct.unpack_from("<3H", data, at + 28))
    return found


def test_lies_of_the_directory():
    # The manifest, and two arrays whose names are equally long.
    by_length = {}
    for at in directory_fields(STORED):
        by_length.setdefault(struct.unpack_from("<H", STORED, at + 28)[0], []).append(at)
    (manifest,) = by_length.pop(len("manifest.json"))
    first, second, *_ = next(found for found in by_length.values() if len(found) > 1)
    end = STORED.rfind(b"PK\x05\x06")
    size = struct.unpack_from("<I", STORED, first + 24)[0]
    refuse(patched(STORED, first + 24, "<I", size + 1), "claims to hold")
    refuse(patched(STORED, manifest + 24, "<I", 2**32 - 1), "claims to hold")
    refuse(patched(STORED, manifest + 20, "<I", 2**31), "cut off")
    refuse(patched(STORED, manifest + 20, "<I", 5), "inflated|shorter|end where")
    refuse(patched(STORED, manifest + 24, "<I", 5), "longer")
    refuse(patched(STORED, manifest + 16, "<I", 0), "checksum of member 'manifest.json'")
    refuse(patched(STORED, first + 16, "<I", 0), "checksum")
    refuse(patched(STORED, first + 42, "<I", 2**32 - 1), "outside")
    refuse(patched(STORED, first + 42, "<I", 3), "contradicts")
    refuse(patched(STORED, first + 8, "<H", 1), "encrypted")
    refuse(patched(STORED, first + 46, "<B", 0xFF), "not ASCII")
    refuse(patched(STORED, first + 28, "<H", 0xFFFF), "damaged")
    refuse(patched(STORED, end + 12, "<I", 2**31), "outside of the file")
    refuse(patched(STORED, end + 16, "<I", 2**31), "outside of the file")
    refuse(patched(patched(STORED, end + 10, "<H", 9), end + 8, "<H", 9), "cut off")
    refuse(patched(patched(STORED, end + 10, "<H", 999), end + 8, "<H", 999), "999 members")
    refuse(patched(STORED, end + 4, "<H", 1), "damaged")
    offset = struct.unpack_from("<I", STORED, first + 42)[0]
    length = struct.unpack_from("<H", STORED, first + 28)[0]
    name = STORED[first + 46 : first + 46 + length]
    refuse(STORED[: second + 46] + name + STORED[second + 46 + length :], "stands twice")
    refuse(patched(STORED, second + 42, "<I", offset), "contradicts")


def test_members_that_overlap():
    """A member inside another one, as in bombs whose members share their bytes."""
    inner, outer = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("inner.npy", npy(np.zeros(3, np.uint8)))
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr("manifest.json", json.dumps(MANIFEST))
        archive.writestr("outer.npy", inner.getvalue())
    data, part = outer.getvalue(), inner.getvalue()
    (header,), end = directory_fields(part), part.rfind(b"PK\x05\x06")
    entry = patched(part[header:end], 42, "<I", data.find(part))
    end = data.rfind(b"PK\x05\x06")
    data = data[:end] + entry + data[end:]
    end += len(entry)
    data = patched(patched(data, end + 8, "<H", 3), end + 10, "<H", 3)
    data = patched(data, end + 12, "<I", struct.unpack_from("<I", data, end + 12)[0] + len(entry))
    refuse(data, "overlap")


def test_a_zip_bomb_takes_no_memory():
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(bomb.compress(bytes(2**20)) for _ in range(300)) + bomb.flush()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", " " * 2**20)
    data = file.getvalue()
    (header,) = directory_fields(data)
    start = 30 + len("manifest.json")
    lying = data[:start] + packed + data[struct.unpack_from("<I", data, header + 20)[0] + start :]
    (header,) = (lying.rfind(b"PK\x01\x02"),)
    end = lying.rfind(b"PK\x05\x06")
    lying = patched(patched(lying, header + 20, "<I", len(packed)), end + 16, "<I", header)
    tracemalloc.start()
    refuse(lying, "longer than it claims")
    refuse(patched(lying, header + 24, "<I", 300 * 2**20), "bytes, 33554432 are the most")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 2**20


def test_members_that_claim_more_than_a_file_may_hold(monkeypatch):
    monkeypatch.setattr(limits, "FREE_BYTES", 100)
    monkeypatch.setattr(limits, "MAX_EXPANSION", 1)
    refuse(repack(MANIFEST, MEMBERS, zipfile.ZIP_DEFLATED), "claim to hold more")


# --- the arrays -------------------------------------------------------------------------------------------------------


class Evil:
    """Pickles into something that runs when it is loaded."""

    def __reduce__(self):
        return pytest.fail, ("code of a pickle was run",)


def test_pickled_objects_are_never_loaded():
    data = repack(MANIFEST, {**MEMBERS, "uint8.npy": npy(np.array([Evil()], object))})
    refuse(data, "'uint8.npy': its header .* is none of a flat array of numbers")


HEADER = b"\x93NUMPY\x01\x00"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPX\x01\x00" + b"\x76\x00" + b" " * 118,
        npy(np.zeros((2, 3), np.uint8)),
        npy(np.float32(1)),
        npy(np.zeros(3, ">f4")),
        npy(np.zeros(3, np.complex64)),
        npy(np.zeros(3, "U4")),
        npy(np.zeros(3, [("a", "<f4")])),
        npy(np.zeros(3, np.uint8)) + b"x",
        npy(np.zeros(3, np.uint8))[:-1],
        HEADER + b"\xff\xff{}",
        HEADER + b"\x10\x00{'descr': '|u1'\n",
        HEADER + b"\x46\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }".ljust(69) + b"\n",
        HEADER + b"\x56\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999999999,), }".ljust(85) + b"\n",
        HEADER + b"\x46\x00" + b"__import__('os').abort()".ljust(69) + b"\n",
        b"\x93NUMPY\x02\x00" + npy(np.zeros(3, np.uint8))[8:],
    ],
)
def test_members_that_are_no_flat_arrays(content):
    refuse(repack(MANIFEST, {**MEMBERS, "uint8.npy": content}), "member 'uint8.npy'")


def with_part(tensor, part, array):
    """The bundle with the contents of one part replaced."""
    manifest, members = copy.deepcopy(MANIFEST), dict(MEMBERS)
    entry = manifest["tensors"][tensor_index(tensor)]["parts"]
    entry[part] = ["changed.npy", 0, len(array)]
    members["changed.npy"] = npy(array)
    return repack(manifest, members)


def test_wrong_contents_of_arrays():
    kernel = read_bundle(STORED).program.tensors["hidden/kernel"]
    pointers, indices = kernel.arrays["pointers"], kernel.arrays["indices"]
    read_bundle(with_part("hidden/kernel", "indices", indices))
    beyond = indices.copy()
    beyond[-1] = 200
    refuse(with_part("hidden/kernel", "indices", beyond), "tensor 'hidden/kernel': index 200 is outside of 12 columns")
    refuse(with_part("hidden/kernel", "indices", indices[::-1].copy()), "ascend")
    refuse(with_part("hidden/kernel", "indices", indices[:-1].copy()), "do not fit")
    refuse(with_part("hidden/kernel", "indices", indices.astype("<i4")), "is int32")
    falling = pointers.copy()
    falling[3] = 255
    refuse(with_part("hidden/kernel", "pointers", falling), "the pointers do not ascend")
    refuse(with_part("hidden/bias", "values", np.zeros(20, np.float64)), "is float64")
    refuse(with_part("hidden/bias", "values", np.zeros(21, np.float32)), "21 values for 20 elements")
    bad_bool = npy(np.zeros(4, np.bool_))[:-1] + b"\x02"
    refuse(
        repack(MANIFEST, {**MEMBERS, "bool.npy": bad_bool.ljust(len(MEMBERS["bool.npy"]), b"\0")}), "neither 0 nor 1|'bool.npy'"
    )


def test_a_flipped_bit_in_the_weights_is_noticed():
    at = STORED.find(MEMBERS["float32.npy"][-40:])
    assert at > 0
    refuse(patched(STORED, at, "<B", STORED[at] ^ 1), "checksum of member 'float32.npy'")


# --- the manifest -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "malformed"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"{'format': 1}", "malformed"),
        (b"[]", "not an object"),
        (b"null", "not an object"),
        (b'{"format": NaN}', "NaN"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "limit"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b"[" * 100_000, "limit|malformed"),
        (b"[" * 40 + b"]" * 40, "nested more than 32"),
        (b'{"format": "sparsec-bundle", "version": 2}', "format version is 2.*update sparsec"),
        (b'{"format": "sparsec-bundle", "version": true}', "format version is True"),
        (b'{"format": "sparsec-bundle"}', "no field 'version'"),
        (b'{"format": "other"}', "does not say"),
    ],
)
def test_manifests_that_are_no_manifests(text, message):
    refuse(repack(text, MEMBERS), message)


NODE = ("nodes", 0)
TENSOR = ("tensors", KERNEL)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("nodes",), ..., "no field 'nodes'"),
        (("surplus",), 1, "unknown field 'surplus'"),
        (("nodes",), {}, "not a list"),
        (("level",), "max", "none of stored, plain"),
        (("inputs", 0, "shape"), ["N", -1], "not an integer from 1"),
        (("inputs", 0, "shape"), ["N", 12.0], "not an integer from 1"),
        (("inputs", 0, "shape"), ["N", "2*H"], "not the name of a size"),
        (("inputs", 0, "shape"), [], "list of 1 to"),
        (("inputs", 0, "shape"), ["N"] * 9, "list of 1 to 8"),
        (("inputs", 0, "shape"), ["N", 13], "kernel.*was expected"),
        (("inputs", 0, "dtype"), "object", "none of"),
        (("inputs", 0, "name"), "hidden/bias", "defined twice"),
        (("outputs",), [], "no output"),
        (("outputs", 0, "value"), "nothing", "nothing defines"),
        (("outputs", 1, "name"), "probs", "two outputs"),
        ((*NODE, "op"), "eval", "no operator 'eval'.*newer version"),
        ((*NODE, "inputs"), ["x", "missing"], "nothing before it defines"),
        ((*NODE, "inputs"), ["top", "hidden/kernel"], "nothing before it defines"),
        ((*NODE, "inputs"), [], "does not take 0 inputs"),
        ((*NODE, "inputs"), ["", "hidden/kernel"], "missing"),
        (("nodes", 4, "outputs"), [], "nothing defines"),
        (("nodes", 4, "outputs"), ["choice", "second"], "has 1 outputs, not 2"),
        ((*NODE, "outputs"), ["x"], "defined already"),
        ((*NODE, "name"), "top", "two nodes"),
        ((*NODE, "attributes"), {"surplus": 1}, "no attribute 'surplus'"),
        (("nodes", 1, "attributes"), {}, "needs attribute"),
        (("nodes", 1, "attributes", "max_value"), "six", "not a float or null"),
        (("nodes", 1, "attributes", "max_value"), {"a": 1}, "not a list"),
        (("nodes", 1, "attributes", "max_value"), 10**30, "beyond"),
        (("nodes", 3, "attributes", "dtype"), "float128", "one of"),
        ((*TENSOR, "shape"), [12, 21], "kernel|bias"),
        ((*TENSOR, "shape"), [2**31, 20], "not an integer"),
        ((*TENSOR, "shape"), [2**30, 20], "more than"),
        ((*TENSOR, "shape"), [2**30, 0, 2**30], "more than"),
        ((*TENSOR, "rows"), [2], "not distinct axes"),
        ((*TENSOR, "rows"), [-1], "not an integer"),
        ((*TENSOR, "positions"), "gaps", "unknown.*newer version"),
        ((*TENSOR, "values"), "codebook", "unknown.*newer version"),
        ((*TENSOR, "name"), "hidden/bias", "stands twice"),
        ((*TENSOR, "parts"), {}, "the parts are"),
        ((*TENSOR, "parts", "surplus"), ["uint8.npy", 0, 0], "the parts are|overlap"),
        ((*TENSOR, "parts", "indices"), ["other.npy", 0, 1], "which the zip does not have"),
        ((*TENSOR, "parts", "indices"), ["manifest.json", 0, 1], "not the name of a .npy member"),
        ((*TENSOR, "parts", "indices", 1), -1, "not an integer"),
        ((*TENSOR, "parts", "indices", 1), 2**52, "ends at element"),
        ((*TENSOR, "parts", "indices", 2), 2**31 - 1, "ends at element"),
        ((*TENSOR, "parts", "indices", 2), 2**31, "not an integer"),
        ((*TENSOR, "parts", "indices"), MANIFEST["tensors"][KERNEL]["parts"]["pointers"], "overlap"),
        (("source",), {"sha256": "AB" * 32}, "not a SHA-256"),
        (("selfcheck", "seed"), -1, "not an integer"),
        (("selfcheck", "inputs"), [], "does not fit"),
        (("selfcheck", "inputs", 0, "shape"), [1, 13], "does not fit input 'x'"),
        (("selfcheck", "inputs", 0, "shape"), [2**30, 12], "more than"),
        (("selfcheck", "inputs", 0, "low"), 1, "does not fit input 'x'"),
        (("selfcheck", "inputs", 0, "dtype"), "bool", "does not fit input 'x'"),
        (("selfcheck", "outputs", 0, "shape"), [0], "values of an output"),
        (("selfcheck", "tolerance"), -0.5, "negative"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_wrong_manifests(path, value, message):
    refuse(repack(changed(path, value), MEMBERS), message)


def test_errors_name_the_file_and_what_to_do(tmp_path):
    path = tmp_path / "model.npz"
    path.write_bytes(PLAIN[:-100])
    with pytest.raises(FormatError, match=r"model\.npz is not a bundle that can be used: .*sparsec compile"):
        read_bundle(path)


def test_deep_json_is_refused_without_a_crash():
    for text in (b"[" * 10**6, b'{"a":' * 10**5, b"[" * 10**6 + b"]" * 10**6):
        with pytest.raises(FormatError):
            parse(text)


def chain(nodes, shape=("N", "H")):
    manifest = copy.deepcopy(MANIFEST)
    manifest.pop("selfcheck")
    manifest["inputs"] = [{"name": "x", "dtype": "float32", "shape": list(shape)}]
    manifest["nodes"] = nodes
    manifest["outputs"] = [{"name": "y", "value": nodes[-1]["outputs"][0]}]
    return repack(manifest, MEMBERS)


def node(op, index, inputs, **attributes):
    return {"op": op, "name": f"n{index}", "layer": "", "inputs": inputs, "outputs": [f"v{index}"], "attributes": attributes}


def test_symbolic_sizes_that_explode_are_refused_in_time():
    # Every round squares a size: [N, s] -> [N, s, 1] + [N, 1, s] -> [N, s * s].
    nodes, value = [], "x"
    for index in range(0, 160, 4):
        nodes += [
            node("reshape", index, [value], shape=[0, -1, 1]),
            node("reshape", index + 1, [value], shape=[0, 1, -1]),
            node("add", index + 2, [f"v{index}", f"v{index + 1}"]),
            node("reshape", index + 3, [f"v{index + 2}"], shape=[0, -1]),
        ]
        value = f"v{index + 3}"
    begin = time.perf_counter()
    refuse(chain(nodes))
    refuse(chain(nodes, shape=("N", 3)))
    assert time.perf_counter() - begin < 20


def test_sizes_that_grow_without_end_are_refused():
    nodes = [node("tile", i, [f"v{i - 1}" if i else "x"], repeats=[1, 2**40]) for i in range(2000)]
    refuse(chain(nodes))
    refuse(chain(nodes, shape=("N", 3)))


def test_nested_floors_are_refused_or_read():
    window = {"window": [2], "strides": [2], "padding": "same", "pads": [], "dilations": [1]}
    nodes = [node("max_pool", i, [f"v{i - 1}" if i else "x"], **window) for i in range(3000)]
    outcome(chain(nodes, shape=("N", "H", 3)))


def test_an_operator_without_axes_is_refused():
    nodes = [
        node("reduce_mean", 0, ["x"], axes=[0, 1], keepdims=False),
        node("tile", 1, ["v0"], repeats=[]),
    ]
    outcome(chain(nodes))


# --- fuzz -------------------------------------------------------------------------------------------------------------


def outcome(data):
    """Read and decode; only errors that sparsec raises on purpose may come out."""
    try:
        program = read_bundle(data).program
        for stored in program.tensors.values():
            decode(stored)
    except SparsecError as error:
        message = str(error)
    else:
        message = "fine"
    assert "\n" not in message


@given(st.data())
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
def test_flipped_bytes(data):
    sample = bytearray(data.draw(st.sampled_from([STORED, PLAIN])))
    for _ in range(data.draw(st.integers(1, 4))):
        sample[data.draw(st.integers(0, len(sample) - 1))] = data.draw(st.integers(0, 255))
    outcome(bytes(sample))


def test_every_byte_of_the_directory_and_headers():
    rng = np.random.default_rng(0)
    end = STORED.rfind(b"PK\x05\x06")
    places = [*range(directory_fields(STORED)[0], end + 22), *range(60)]
    for at in places:
        for value in (0, 0xFF, int(rng.integers(256))):
            outcome(patched(STORED, at, "<B", value))


PATHS = []


def collect(value, path=()):
    PATHS.append(path)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        collect(item, (*path, key))


collect(MANIFEST)
STRANGE = [
    ..., None, True, 0, 1, -1, 2, 3, 7, 63, 2**31 - 1, 2**31, 2**53, 10**40, 0.5, -0.0, 1e308,
    "", "x", "N", "hidden", "relu", "conv", "reshape", "csr", "bool", "\ud800",
    [], [0], [-1], [1, 1], [0, 0, 0], [2**31 - 1] * 8, ["x"], ["x", "x"], {}, {"a": 1},
]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from([path for path in PATHS if path]), st.sampled_from(STRANGE)), min_size=1, max_size=3))
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
def test_strange_manifests(changes):
    manifest = copy.deepcopy(MANIFEST)
    for path, value in changes:
        place = manifest
        try:
            for key in path[:-1]:
                place = place[key]
            if value is ...:
                del place[path[-1]]
            else:
                place[path[-1]] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):
            continue
    outcome(repack(manifest, MEMBERS))


ATTRIBUTE_VALUES = [
    None, True, -3, -1, 0, 1, 2, 5, 2**31, 2**53 - 1, 0.5, -1e300, "same", "explicit", "linear", "float32",
    [], [0], [-1], [1], [2, 2], [-1, 0], [0, 1], [1, 1, 1, 1], [-5] * 4, [2**53 - 1] * 2, [0, -1, 1], [3, 3], [2**31] * 3,
]  # fmt: skip
SHAPES = [
    ("N",), ("N", 3), ("N", 8, 8, 4), ("N", "H", "W", 4), ("N", "T", 4), (1, 1), ("N", 4, 4, 4, 2), ("N", "N"),
]  # fmt: skip


@given(st.data())
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
def test_strange_operators(data):
    shape = data.draw(st.sampled_from(SHAPES))
    nodes = []
    values = ["x", "hidden/kernel", "hidden/bias", "top/kernel", "mask", "shift", "half", ""]
    for index in range(data.draw(st.integers(1, 4))):
        op = OPS[data.draw(st.sampled_from(sorted(OPS)))]
        attributes = {name: data.draw(st.sampled_from(ATTRIBUTE_VALUES)) for name in op.attributes}
        inputs = data.draw(st.lists(st.sampled_from(values), min_size=len(op.inputs), max_size=len(op.inputs)))
        if data.draw(st.booleans()):
            inputs[0] = nodes[-1]["outputs"][0] if nodes else "x"
        nodes.append(node(op.name, index, inputs, **attributes))
        values.append(f"v{index}")
    outcome(chain(nodes, shape=shape))
