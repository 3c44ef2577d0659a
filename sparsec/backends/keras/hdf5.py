"""Rewriting HDF5 files: some datasets and attributes change, some are added or left out; all else is copied.

The file is written anew, since HDF5 does not give back the room of what is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsec.errors import FormatError
from sparsec.frontends.hdf5 import stored_as, widened
from sparsec.ir import Array


@dataclass
class H5Changes:
    """What changes in a file; everything by its path in it.

    Attributes:
        datasets: what the values of a dataset become.
        added: datasets that are new, in groups that exist.
        attributes: what the value of an attribute becomes, by path of its group and name; a name stands for the numbered
            chunks too in which Keras stores lists that are too long for one attribute.
        dropped: groups and datasets that are left out.
    """

    datasets: dict[str, Callable[[Array], Array]] = field(default_factory=dict)
    added: dict[str, Array] = field(default_factory=dict)
    attributes: dict[tuple[str, str], Callable[[Any], Any]] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)

    def edit_attribute(self, group: str, name: str, edit: Callable[[Any], Any]) -> None:
        """Edit an attribute, after the edits that it has."""
        first = self.attributes.get((group, name))
        self.attributes[group, name] = edit if first is None else lambda value: edit(first(value))

    def opened(self) -> set[str]:
        """The groups in which, or below which, something changes."""
        places = {group for group, _ in self.attributes}
        for path in (*self.datasets, *self.added, *self.dropped):
            places.add(path.rpartition("/")[0] or "/")
        for path in tuple(places):
            parts = path.strip("/").split("/")
            places |= {"/" + "/".join(parts[:count]) for count in range(len(parts))}
        return places


def rewrite_h5(source: Path, target: Path, changes: H5Changes, where: str) -> None:
    """Write a changed copy of a file, which messages call ``where``.

    Raises:
        FormatError: the file is damaged in a place that has not been read before.
    """
    import h5py

    with h5py.File(source, "r") as before, h5py.File(target, "w", track_order=_tracks_order(before)) as after:
        try:
            _copy_group(before, after, changes, changes.opened())
        except (KeyError, RuntimeError) as error:
            raise FormatError(f"{where}: the HDF5 data is damaged ({error}); save the model again") from None


def _copy_group(before: Any, after: Any, changes: H5Changes, opened: set[str]) -> None:
    import h5py

    _copy_attributes(before, after, {name: edit for (group, name), edit in changes.attributes.items() if group == before.name})
    for name in before:
        path = f"{before.name.rstrip('/')}/{name}"
        link = before.get(name, getlink=True)
        if path in changes.dropped:
            continue
        if not isinstance(link, h5py.HardLink):
            # Links are kept as links: what they point to is not looked at.
            after[name] = link
        elif path in opened:
            _copy_group(before[name], after.create_group(name, track_order=_tracks_order(before[name])), changes, opened)
        elif path in changes.datasets:
            dataset = before[name]
            values = stored_as(changes.datasets[path](widened(dataset[()])), dataset.dtype)
            _copy_attributes(dataset, after.create_dataset(name, data=values, dtype=dataset.dtype), {})
        else:
            before.copy(name, after, name)
    for path, values in changes.added.items():
        group, _, name = path.rpartition("/")
        if (group or "/") == before.name:
            after.create_dataset(name, data=values)


def _tracks_order(group: Any) -> bool:
    return bool(group.id.get_create_plist().get_link_creation_order())


def _copy_attributes(before: Any, after: Any, edits: Mapping[str, Callable[[Any], Any]]) -> None:
    import h5py
    import numpy as np

    for name in before.attrs:
        value, dtype = before.attrs[name], before.attrs.get_id(name).dtype
        edit = edits.get(name.rstrip("0123456789"))
        if edit is not None:
            value = edit(value)
            if dtype.kind == "S":
                # Strings of a fixed length: the new ones may be longer.
                dtype = np.asarray(value).astype("S").dtype
        if isinstance(value, h5py.Empty):
            after.attrs[name] = value
        else:
            after.attrs.create(name, value, dtype=dtype)
