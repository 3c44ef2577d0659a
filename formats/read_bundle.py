"""An independent reader of sparsec bundles, written from the pages beside it, with the standard library and NumPy alone.

    python formats/read_bundle.py FILE    lists the tensors, and prints the content digest

It shows that the pages are complete, and is a start for a reader in another language. It refuses what would decode to something
wrong; sparsec's own reader checks more, such as limits and the types of operators.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import zipfile
from math import prod

import numpy as np

DTYPES = ("bool", "int32", "int64", "float16", "float32", "float64")
INDEX_DTYPES = ("uint8", "uint16", "uint32")


def require(condition: object, message: str) -> None:
    """Raise ``ValueError`` unless the condition holds."""
    if not condition:
        raise ValueError(message)


def read(file: str | io.BytesIO) -> tuple[dict, dict[str, np.ndarray]]:
    """The manifest and the decoded tensors by name.

    Raises:
        ValueError: the file is not a bundle, or is damaged.
    """
    try:
        archive = zipfile.ZipFile(file)
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise ValueError(f"not a zip that can be read: {error}") from None
    require(len(members) == len(archive.infolist()), "a member stands twice")
    require("manifest.json" in members, "there is no manifest.json")
    manifest = json.loads(members.pop("manifest.json"))
    require(manifest.get("format") == "sparsec-bundle" and manifest.get("version") == 1, "not a bundle of version 1")
    arrays = {name: np.load(io.BytesIO(data), allow_pickle=False) for name, data in members.items()}
    tensors = {entry["name"]: decode(entry, cut_parts(entry, arrays)) for entry in manifest["tensors"]}
    return manifest, tensors


def cut_parts(entry: dict, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parts of a tensor, cut out of the members they lie in."""
    parts = {}
    for name, (member, offset, count) in entry["parts"].items():
        require(member in arrays and arrays[member].ndim == 1, f"{entry['name']}: there is no flat array {member}")
        require(0 <= offset <= offset + count <= len(arrays[member]), f"{entry['name']}: part {name} lies outside of {member}")
        parts[name] = arrays[member][offset : offset + count]
    return parts


def decode(entry: dict, parts: dict[str, np.ndarray]) -> np.ndarray:
    """The tensor that an entry of the manifest and its parts stand for."""
    require(entry["dtype"] in DTYPES, f"unknown dtype {entry['dtype']}")
    shape, rows = tuple(entry["shape"]), list(entry["rows"])
    values = decode_values(entry["values"], entry["dtype"], parts)
    if entry["positions"] == "dense":
        require(len(values) == prod(shape), "the number of values is not the number of elements")
        return values.reshape(shape)
    axes = rows + [axis for axis in range(len(shape)) if axis not in rows]
    require(sorted(axes) == list(range(len(shape))), "the rows are no distinct axes")
    height = prod(shape[axis] for axis in rows)
    width = prod(shape) // height if height else 0
    flat = decode_positions(entry["positions"], height, width, len(values), parts)
    require(len(flat) == len(values), "the number of positions is not the number of values")
    require(np.all(flat[1:] > flat[:-1]), "the positions do not ascend")
    view = np.zeros(prod(shape), entry["dtype"])
    view[flat] = values
    return np.ascontiguousarray(view.reshape([shape[axis] for axis in axes]).transpose(np.argsort(axes)))


def decode_values(kind: str, dtype: str, parts: dict[str, np.ndarray]) -> np.ndarray:
    """The stored elements in order."""
    if kind == "raw":
        values = parts["values"]
        require(values.dtype == np.dtype(dtype), "the values have another dtype than the tensor")
    else:
        require(kind == "planes", f"unknown encoding {kind} of values")
        planes = [parts[f"plane{byte}"] for byte in range(np.dtype(dtype).itemsize)]
        require(
            all(plane.dtype == np.uint8 and len(plane) == len(planes[0]) for plane in planes), "the planes differ in length"
        )
        values = np.stack(planes, axis=1).reshape(-1).view(np.dtype(dtype).newbyteorder("<"))
    require(dtype != "bool" or not values.size or values.view(np.uint8).max() <= 1, "a bool is neither 0 nor 1")
    return values


def decode_positions(kind: str, height: int, width: int, count: int, parts: dict[str, np.ndarray]) -> np.ndarray:
    """The flat, row-major indices of the stored elements in a view of ``height`` rows and ``width`` columns."""
    if kind == "bitmap":
        require(
            parts["bitmap"].dtype == np.uint8 and len(parts["bitmap"]) == -(-height * width // 8), "the bitmap does not fit"
        )
        bits = np.unpackbits(parts["bitmap"], bitorder="little")
        require(not bits[height * width :].any(), "bits are set behind the last element")
        return np.flatnonzero(bits)
    names = {"csr": ("pointers", "indices"), "coo": ("rows", "columns")}
    require(kind in names, f"unknown encoding {kind} of positions")
    require(all(parts[name].dtype.name in INDEX_DTYPES for name in names[kind]), "an index has a wrong dtype")
    first, columns = (parts[name].astype(np.int64) for name in names[kind])
    if kind == "csr":
        require(len(first) == height + 1 and first[0] == 0 and first[-1] == count, "the pointers do not fit")
        require(np.all(first[1:] >= first[:-1]), "the pointers do not ascend")
        first = np.repeat(np.arange(height), np.diff(first))
    require(len(first) == len(columns) == count, "the indices do not fit the values")
    require(np.all(first < height) and np.all(columns < width), "an index lies outside of the view")
    return first * width + columns


def content_digest(manifest: dict, tensors: dict[str, np.ndarray]) -> str:
    """The content digest, in hexadecimal."""

    def line(value: object) -> bytes:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"

    digest = hashlib.sha256(line({key: manifest[key] for key in ("name", "inputs", "outputs", "nodes")}))
    for name in sorted(tensors):
        array = tensors[name].astype(tensors[name].dtype.newbyteorder("<"))
        digest.update(line([name, array.dtype.name, list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]))
    return digest.hexdigest()


def selfcheck_inputs(selfcheck: dict) -> list[np.ndarray]:
    """The inputs to which the expected outputs of a self-check belong."""
    arrays, position = [], 0
    for entry in selfcheck["inputs"]:
        numbers = [splitmix64(selfcheck["seed"], position + j) for j in range(prod(entry["shape"]))]
        position += len(numbers)
        low, high = entry["low"], entry["high"]
        if entry["dtype"].startswith("float"):
            elements = [low + (high - low) * ((u >> 40) * 2.0**-24) for u in numbers]
        else:
            elements = [int(low) + u % (int(high) - int(low)) for u in numbers]
        arrays.append(np.array(elements).astype(entry["dtype"]).reshape(entry["shape"]))
    return arrays


def splitmix64(seed: int, position: int) -> int:
    """The integer at a position of the generator's stream."""
    mask = 2**64 - 1
    z = (seed + (position + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def main() -> None:
    """List the tensors of the bundle that the command line names."""
    manifest, tensors = read(sys.argv[1])
    for entry in manifest["tensors"]:
        array = tensors[entry["name"]]
        encoding = f"{entry['positions']} {entry['values']}"
        print(f"{entry['name']:40} {entry['dtype']:8} {entry['shape']!s:20} {encoding:14} {np.count_nonzero(array)} nonzeros")
    print(f"{len(manifest['nodes'])} nodes, {len(tensors)} tensors, digest {content_digest(manifest, tensors)}")


if __name__ == "__main__":
    main()
