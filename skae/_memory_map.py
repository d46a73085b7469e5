"""Files and batches of a table -> a memory map, for data larger than memory."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ._columns import categorical_columns, library, read

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


def memory_map(source, path):
    """Write a table that is larger than memory to a file that every estimator can fit.

    An estimator reads a memory map of 128 MB or more in blocks, so that no more than about 200 MB are in memory.
    Weights, groups and `cv` are not possible then.

    Parameters
    ----------
    source : str, path, or iterable of data frames
        A parquet or CSV file, or a folder of parquet files, for which the package pyarrow is needed; or parts of the
        table, all with the same columns: data frames of pandas or polars, or arrays.
    path : str or path
        File to write, in NumPy's format: 4 bytes a cell. ``np.load(path, mmap_mode="r")`` opens it again.

    Returns
    -------
    map : MemoryMap
        ``map.X`` is the table. ``map.categorical_features`` are the places of columns with categories, which are
        strings and booleans, and ``map.categories[name]`` the values of one of them: that of the code 0 first.

    Raises
    ------
    ValueError
        If there are no rows, or if a part has other columns than the first.

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
    parts = _parts_of_file(Path(source)) if isinstance(source, str | Path) else iter(source)
    path, names, categories, is_category, n_rows = Path(path), None, {}, None, 0
    with path.open("wb") as file:
        for part in parts:
            part_names = list(part.columns) if library(part) else list(range(np.shape(part)[1]))
            if names is None:
                names, mask = part_names, categorical_columns(part, "auto")
                is_category = np.zeros(len(names), dtype=bool) if mask is None else mask
                categories = {name: [] for name, is_cat in zip(names, is_category, strict=True) if is_cat}
                _write_header(file, 0, len(names))
            if part_names != names:
                raise ValueError(f"A part of the table has the columns {part_names}, the first one {names}.")
            file.write(_codes(part, names, is_category, categories).astype(np.float32).tobytes())
            n_rows += len(part)
        if not n_rows:
            raise ValueError("The table has no rows.")
        file.seek(0)
        _write_header(file, n_rows, len(names))
    return MemoryMap(np.load(path, mmap_mode="r"), names, categories)


def _codes(part, names, is_category, categories):
    """Codes and numbers of a part; categories that are new get the next codes."""
    codes, columns = read(part, is_category)
    for place in np.flatnonzero(is_category):
        known = categories[names[place]]
        known += [value for value in columns[place].categories if value not in known]
        place_of = np.array([known.index(value) for value in columns[place].categories], dtype=float)
        seen = ~np.isnan(codes[:, place])
        codes[seen, place] = place_of[codes[seen, place].astype(int)]
    return codes


def _write_header(file, n_rows, n_columns):
    # NumPy leaves room in it for a number of rows that grows
    header = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": (n_rows, n_columns)}
    np.lib.format.write_array_header_1_0(file, header)


def _parts_of_file(path):
    try:
        from pyarrow import csv, dataset
    except ImportError as error:
        message = "memory_map of a file needs pyarrow. Install it, or pass parts of the table as data frames."
        raise ImportError(message) from error
    kind = "parquet"
    if path.suffix in (".csv", ".gz", ".bz2"):
        kind = dataset.CsvFileFormat(convert_options=csv.ConvertOptions(strings_can_be_null=True))
    for batch in dataset.dataset(path, format=kind).to_batches():
        if batch.num_rows:
            yield batch.to_pandas()
