"""Files and batches of a table -> a memory map, for data larger than memory."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ._columns import MOST_CATEGORIES, categorical_columns, check_names, library, read

__all__ = ["MemoryMap", "memory_map"]


class MemoryMap(NamedTuple):
    """What `memory_map` has written.

    X: memory map, float32 (n_samples, n_features), categories as codes and NaN where cells are missing. names: of the
    columns. categories: of each column that has them, by its name, the values that the codes stand for.
    """

    X: np.memmap
    names: list
    categories: dict

    @property
    def categorical_features(self) -> list[int]:
        """Places of the columns with categories, as estimators take them."""
        return [place for place, name in enumerate(self.names) if name in self.categories]


def memory_map(source: Any, path: str | os.PathLike) -> MemoryMap:
    """Write a table that is larger than memory to a file that every estimator can fit.

    An estimator reads a memory map of 128 MB or more in blocks, so that no more than about 200 MB are in memory.
    Weights, groups and `cv` are not possible then.

    Parameters
    ----------
    source : str, path, data frame, array, or iterable of these
        A parquet or CSV file, or a folder of files of one kind, for which the package pyarrow is needed; or parts of
        the table, all with the same columns: data frames of pandas or polars, tables of pyarrow, or arrays.
    path : str or path
        File to write, in NumPy's format: 4 bytes a cell. ``np.load(path, mmap_mode="r")`` opens it again. It is there
        when all is written; until then, a file beside it with the suffix ".part" is.

    Returns
    -------
    map : MemoryMap
        ``map.X`` is the table, rounded to float32: identifiers above 2^24 are not told apart.
        ``map.categorical_features`` are the places of columns with categories, which are strings and booleans in the
        first part, and ``map.categories[name]`` the values of one of them: that of the code 0 first.

    Raises
    ------
    ValueError
        If there are no rows, if a part has other columns than the first or of another kind, dates, numbers that are
        infinite in float32, or if a column has more than 1000 categories. The file is then not written.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import pandas as pd
    >>> from skae import AutoEncoder, memory_map
    >>> part = pd.DataFrame({"size": [1.0, 2.0, None, 4.0], "color": ["red", "blue", "red", None]})
    >>> with TemporaryDirectory() as folder:
    ...     table = memory_map([part, part], Path(folder) / "table.npy")
    ...     print(table.X.shape, table.categories, table.X[2])
    ...     model = AutoEncoder(1, categorical_features=table.categorical_features, max_iter=2).fit(table.X)
    (8, 2) {'color': ['blue', 'red']} [nan  1.]
    """
    path = Path(path)
    unfinished = path.with_name(path.name + ".part")
    try:
        with unfinished.open("wb") as file:
            codes_of, n_rows = None, 0
            for part in _parts(source):
                if codes_of is None:
                    codes_of = Codes(part)
                    _write_header(file, 0, len(codes_of.names))
                file.write(codes_of(part).tobytes())
                n_rows += len(part)
            if not n_rows:
                raise ValueError("The table has no rows.")
            file.seek(0)
            _write_header(file, n_rows, len(codes_of.names))
        os.replace(unfinished, path)  # maps of a file that was there stay as they are
    finally:
        unfinished.unlink(missing_ok=True)
    categories = {name: list(known) for name, known in codes_of.places.items()}
    return MemoryMap(np.load(path, mmap_mode="r"), codes_of.names, categories)


class Codes:
    """Codes and numbers of the parts of a table, whose columns are those of the first part.

    places: of each column with categories, by its name, the code of each value, in the order in which they appeared.
    """

    def __init__(self, first):
        self.names, self.is_category = _names(first), _is_category(first)
        self.places = {name: {} for name, is_cat in zip(self.names, self.is_category, strict=True) if is_cat}

    def __call__(self, part):
        """Codes and numbers, float32 (n_samples, n_features)."""
        check_names(part)
        if (names := _names(part)) != self.names:
            raise ValueError(f"A part of the table has the columns {names}, the first one {self.names}.")
        found = _is_category(part)
        codes, columns = read(part, self.is_category | found)
        for place, name in enumerate(self.names):
            seen = ~np.isnan(codes[:, place])
            if seen.any() and found[place] != self.is_category[place]:
                raise ValueError(
                    f"Column {name!r} is of {_kind(found[place])} in a part of the table and of "
                    f"{_kind(self.is_category[place])} in the first. Give all parts the same dtypes."
                )
            if self.is_category[place]:
                codes[seen, place] = self._codes_of(name, columns[place].categories)[codes[seen, place].astype(int)]
        with np.errstate(over="ignore"):
            codes = codes.astype(np.float32)
        if (infinite := np.isinf(codes).any(axis=0)).any():
            raise ValueError(f"Column {self.names[int(infinite.argmax())]!r} has numbers that are infinite in float32.")
        return codes

    def _codes_of(self, name, values):
        """Codes of the values of a column; new ones get the next."""
        places = self.places[name]
        if kinds := {type(value) for value in (*values, *places)} - {str, bool}:
            raise ValueError(f"Column {name!r} has categories that are neither strings nor booleans: {kinds.pop()}.")
        codes = np.array([places.setdefault(value, len(places)) for value in values], dtype=float)
        if len(places) > MOST_CATEGORIES:
            raise ValueError(
                f"Column {name!r} has more than {MOST_CATEGORIES} categories. Drop it, or join those that are rare."
            )
        return codes


def _names(part):
    if np.ndim(part) != 2:
        raise ValueError(f"A part of the table must be a data frame or a 2D array, got {type(part).__name__}.")
    return list(part.columns) if library(part) else list(range(part.shape[1]))


def _is_category(part):
    mask = categorical_columns(part, "auto")
    return np.zeros(part.shape[1], dtype=bool) if mask is None else mask


def _kind(is_category):
    return "categories" if is_category else "numbers"


def _write_header(file, n_rows, n_columns):
    # NumPy leaves room in it for a number of rows that grows
    header = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": (n_rows, n_columns)}
    np.lib.format.write_array_header_1_0(file, header)


def _parts(source):
    """Data frames or arrays, one after another."""
    if isinstance(source, str | Path):
        parts = _parts_of_file(Path(source))
    elif library(source) or isinstance(source, np.ndarray) or hasattr(source, "to_pandas"):
        parts = [source]
    else:
        parts = source
    for part in parts:
        part = part.to_pandas() if type(part).__module__.startswith("pyarrow") else part
        part = part if library(part) else np.asarray(part)
        if len(part):
            yield part


def _parts_of_file(path):
    try:
        from pyarrow import csv, dataset
    except ImportError as error:
        message = "memory_map of a file needs pyarrow. Install it, or pass parts of the table as data frames."
        raise ImportError(message) from error
    names = [file.name.lower() for file in path.iterdir()] if path.is_dir() else [path.name.lower()]
    kind = "parquet"
    if any(".csv" in name for name in names):
        kind = dataset.CsvFileFormat(convert_options=csv.ConvertOptions(strings_can_be_null=True))
    return dataset.dataset(path, format=kind).to_batches()
