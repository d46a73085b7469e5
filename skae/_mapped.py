"""Rows of a memory map: read in blocks, shuffled, and never all in memory."""

import mmap
from collections.abc import Iterator

import numpy as np
import torch
from scipy import sparse
from sklearn.utils import gen_batches
from torch import Tensor

__all__ = [
    "EveryRow",
    "MappedRows",
    "any_missing",
    "indices",
    "is_mapped",
    "missing_columns",
    "pieces",
    "release",
    "rows_to_hold_out",
    "rows_to_learn_from",
    "some_rows",
]

# A memory map of fewer bytes is read whole. joblib hands arrays to its processes as maps: they are to be fitted as the
# arrays would be, unless a copy of them is what one would avoid.
LEAST_BYTES = 2**27
# Neighbouring rows are read together in blocks, for speed, and the rows of several blocks from all over the map are
# shuffled together, so that batches are mixed even where the rows are sorted.
BLOCK_BYTES, WINDOW_BYTES = 2**18, 2**24
GATHERED_AT_ONCE = 512
# At most so many rows, or numbers, are looked at to initialize, and to compare losses.
MOST_ROWS, MOST_NUMBERS = 20_000, 2**23


def is_mapped(X) -> bool:
    """Whether X is a memory map that is too large to be read whole."""
    return isinstance(X, np.memmap) and X.ndim == 2 and X.nbytes >= LEAST_BYTES


def pieces(X: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Slices of the rows of an array and copies of them; what has been read of a map is let go."""
    for rows in gen_batches(len(X), _rows_of(X, WINDOW_BYTES)):
        yield rows, np.array(X[rows])
        release(X)


def any_missing(X) -> bool:
    """Whether cells of a dense or sparse array or of a memory map are missing."""
    return not sparse.issparse(X) and bool(missing_columns(X).any() if is_mapped(X) else np.isnan(X).any())


def missing_columns(X: np.ndarray) -> np.ndarray:
    """Columns in which cells of an array or of a memory map are missing, bool (n_features,)."""
    missing = np.zeros(X.shape[1], dtype=bool)
    for _, rows in pieces(X):
        missing |= np.isnan(rows).any(axis=0)
    return missing


def rows_to_learn_from(X: np.ndarray) -> np.ndarray:
    """X, or rows from all over a memory map; ValueError if a column is observed in none of these."""
    rows = some_rows(X)
    if rows is not X and (empty := np.isnan(rows).all(axis=0)).any():
        raise ValueError(
            f"Columns {np.flatnonzero(empty).tolist()} of the memory map are observed in too few of its rows: in none "
            f"of the {len(rows)} from which categories and conditions are learned. Drop them."
        )
    return rows


def some_rows(X: np.ndarray) -> np.ndarray:
    """X, or rows from all over a memory map."""
    return gathered(X, _drawn(len(X), X.shape[1], 0, MOST_ROWS)) if is_mapped(X) else X


def gathered(X: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Copies of single rows. Each brings the pages around it into memory, so that they are let go after some."""
    out = np.empty((len(places), X.shape[1]), X.dtype)
    for start in range(0, len(places), GATHERED_AT_ONCE):
        out[start : start + GATHERED_AT_ONCE] = X[places[start : start + GATHERED_AT_ONCE]]
        release(X)
    return out


def release(X) -> None:
    """Let the pages go that the process holds of X, if it is a memory map: they are read again when they are needed.

    Not of a copy-on-write map, which would lose what was written to it.
    """
    mapping = getattr(X, "_mmap", None)
    if getattr(X, "mode", "c") != "c" and hasattr(mapping, "madvise"):
        mapping.madvise(mmap.MADV_DONTNEED)


def _rows_of(X: np.ndarray, n_bytes: int) -> int:
    """Number of rows of X that are so many bytes, in X or in float32."""
    return max(1, n_bytes // max(1, X.shape[1] * max(X.dtype.itemsize, 4)))


def _drawn(n_rows: int, n_features: int, seed: int, most: int) -> np.ndarray:
    """Indices of some rows, in order."""
    n_drawn = min(n_rows, most, max(1, MOST_NUMBERS // max(1, n_features)))
    return np.sort(np.random.default_rng(seed).choice(n_rows, n_drawn, replace=False, shuffle=False))


class EveryRow:
    """All rows of a memory map but those that are held out, without a list of their indices.

    sample: indices of some of them.
    """

    def __init__(self, n_rows: int, n_features: int, seed: int, held_out: Tensor | None = None) -> None:
        self.n_rows, self.held_out = n_rows, torch.empty(0, dtype=torch.long) if held_out is None else held_out
        drawn = torch.from_numpy(_drawn(n_rows, n_features, seed, MOST_ROWS + len(self.held_out)))
        self.sample = drawn[~torch.isin(drawn, self.held_out)][:MOST_ROWS]

    def __len__(self) -> int:
        return self.n_rows - len(self.held_out)

    def among(self, block: slice) -> Tensor:
        """Those of a block of neighbouring rows, counted from its first."""
        kept = torch.ones(block.stop - block.start, dtype=torch.bool)
        inside = self.held_out[(self.held_out >= block.start) & (self.held_out < block.stop)]
        kept[inside - block.start] = False
        return kept.nonzero().squeeze(1)


def rows_to_hold_out(n_rows: int, n_features: int, n_validation: int, seed: int) -> Tensor:
    """Rows to hold out: so many, but no more than are needed to compare losses."""
    return torch.from_numpy(_drawn(n_rows, n_features, seed + 1, min(n_validation, MOST_ROWS)))


def indices(rows: Tensor | EveryRow) -> Tensor:
    """Rows as indices: of every row of a memory map, those of its sample."""
    return rows.sample if isinstance(rows, EveryRow) else rows


class MappedRows:
    """Rows of a memory map as the network sees them: float32, and made when they are asked for.

    In place of a tensor of all rows: ``x[rows]`` with a tensor of indices, ``len(x)``, ``x.shape``, ``x.device``.
    beside: further rows in memory, which follow those of the map.
    """

    def __init__(self, X: np.ndarray, scaler, device: torch.device, beside: np.ndarray | None = None) -> None:
        self.X, self.scaler, self.device, self.beside = X, scaler, device, beside
        self.shape = torch.Size((len(X) + (0 if beside is None else len(beside)), scaler.n_inputs))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor) -> Tensor:
        places = rows.numpy(force=True)
        inside = places < len(self.X)
        if inside.all():
            values = gathered(self.X, places)
        else:
            values = np.empty((len(places), self.X.shape[1]), self.beside.dtype)
            values[inside] = gathered(self.X, places[inside])
            values[~inside] = self.beside[places[~inside] - len(self.X)]
        return self.scaler.tensor(values, self.device)

    def in_order(self, rows: EveryRow) -> Iterator[Tensor]:
        """All rows, window by window."""
        for window in gen_batches(len(self.X), _rows_of(self.X, WINDOW_BYTES)):
            yield self.scaler.tensor(self._read([window], rows), self.device)

    def batches(self, rows: EveryRow, batch_size: int) -> Iterator[Tensor]:
        """All rows once, in batches: the blocks of rows in random order, and those of a window of blocks shuffled."""
        blocks = list(gen_batches(len(self.X), _rows_of(self.X, BLOCK_BYTES)))
        left = self.X[:0]
        for window in torch.randperm(len(blocks)).split(max(1, WINDOW_BYTES // BLOCK_BYTES)):
            values = np.concatenate([left, self._read([blocks[place] for place in window.tolist()], rows)])
            order, n_whole = torch.randperm(len(values)), len(values) - len(values) % batch_size
            left = values[order[n_whole:].numpy()]
            x, order = self.scaler.tensor(values, self.device), order.to(self.device)
            for start in range(0, n_whole, batch_size):
                yield x[order[start : start + batch_size]]
        if len(left):
            yield self.scaler.tensor(left, self.device)

    def _read(self, blocks: list[slice], rows: EveryRow) -> np.ndarray:
        """Those of the rows that are in some blocks, as they are."""
        values = np.concatenate([self.X[block][rows.among(block).numpy()] for block in blocks])
        release(self.X)
        return values
