"""What is known of every star of a survey, one row a star, in one file that is written whole or not at all.

    with open_states("stars.h5", layout) as states: states.names, states.attrs, states.read("stars", slice(0, 100))
    with new_states("stars.h5", names, layout, attrs) as write: write(slice(0, 100), {"stars": ..., ...})

Layout: {name of an array: (dtype, shape of one star's part)}. An array of numbers that are all 0 for a piece of stars
takes no room where `sparse` names it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

from microlens.data.format import DatasetError, OpenFile, expecting, new_file

STATE_VERSION = 3
KIND = "state of stars"
PIECE = 4096
"""Stars that are in memory at once."""

Layout = dict[str, tuple[np.dtype, tuple[int, ...]]]


class States(OpenFile):
    """An open file of states, read only: names (N,) of the stars, attrs, and the arrays of a layout piece by piece.

    Raises FileNotFoundError, or DatasetError naming file and cause where the file is damaged or of another version.
    """

    def __init__(self, path):
        super().__init__(path, KIND)

    def _read(self):
        self.attrs = dict(self._f.attrs)
        self.names = np.char.decode(self._f["name"][:], "utf-8")
        version = self.attrs["state_version"]
        if version != STATE_VERSION:
            raise DatasetError(f"{self.path}: a {KIND} of version {version}, this package reads {STATE_VERSION}; begin "
                               "a new one.")

    def check(self, layout: Layout):
        """Raise DatasetError where an array is missing, or type or shape are not those of the layout."""
        with expecting(self.path, KIND):
            for name, (dtype, shape) in layout.items():
                found, wanted = self._f[name], (np.dtype(dtype), (len(self.names), *shape))
                if (found.dtype, found.shape) != wanted:
                    raise DatasetError(f"{self.path}: is of another version of the package: {name} is {found.dtype} "
                                       f"{found.shape}, expected {wanted[0]} {wanted[1]}. Begin a new {KIND}.")

    def __len__(self):
        return len(self.names)


@contextlib.contextmanager
def new_states(path, names, layout: Layout, attrs: dict, sparse=()) -> Iterator[Callable[[slice, dict], None]]:
    """Write the states of stars `names` (N,) piece by piece; they take their place at `path` when the block ends well.

    Gives write(part, arrays), which takes the rows `part` of every array of the layout.   sparse : arrays of which
    pieces that are all 0 take no room. Raises WriteError where the file cannot be written.
    """
    encoded = np.char.encode(names, "utf-8")
    of_star = sum(int(np.dtype(dtype).itemsize * np.prod(shape, dtype=int)) for dtype, shape in layout.values())
    with new_file(path, len(names) * of_star + encoded.nbytes) as f:
        f.attrs.update(sorted({**attrs, "state_version": STATE_VERSION}.items()))
        f.create_dataset("name", data=encoded)
        for name, (dtype, shape) in layout.items():
            chunks = (min(PIECE, len(names)), *shape) if name in sparse else None
            f.create_dataset(name, (len(names), *shape), dtype, chunks=chunks)

        def write(part: slice, arrays: dict):
            for name, values in arrays.items():
                if name not in sparse or np.any(values):
                    f[name][part] = values

        yield write
