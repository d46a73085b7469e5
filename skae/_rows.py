"""Rows of X: which are the same, how much each counts, and how many to take at once."""

import hashlib
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, svds
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils._missing import is_pandas_na, is_scalar_nan
from sklearn.utils.validation import _check_sample_weight
from threadpoolctl import threadpool_limits

__all__ = [
    "Sample",
    "SparseRows",
    "TableRows",
    "at_least_one",
    "checked_groups",
    "checked_weights",
    "dense",
    "distinct",
    "in_proportion",
    "representative",
    "row_digests",
    "rows_at_once",
    "stacked",
    "training_rows_at_once",
]

# Outside training this many rows pass through a module together, and fewer where they are wide: enough to fill the
# processor, few enough that what they take stays in its caches. Only speed and memory depend on it.
ROWS_AT_ONCE = 2048
NUMBERS_AT_ONCE = 2**21
# An initialization that draws from weighted rows sees each of them, the lightest once, if that takes no more than this
# many draws a row.
MOST_DRAWS = 10


def rows_at_once(n_features: int) -> int:
    """Number of rows of this width that are computed together outside training."""
    return max(1, min(ROWS_AT_ONCE, NUMBERS_AT_ONCE // max(1, n_features)))


def training_rows_at_once(x) -> int:
    """The same for all rows of a fit: always as many of a tensor, as the noise of a row depends on it."""
    return ROWS_AT_ONCE if isinstance(x, torch.Tensor) else rows_at_once(x.shape[1])


def dense(rows) -> np.ndarray:
    """Rows of a dense or sparse array, as a dense one."""
    return rows.toarray() if sparse.issparse(rows) else rows


def at_least_one(**argument):
    """The one argument as an int; ValueError, with its name, unless it is an integer of at least 1."""
    ((name, value),) = argument.items()
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")
    return int(value)


def checked_weights(sample_weight, X) -> np.ndarray | None:
    """Weights of the rows of X as float64, or None."""
    if sample_weight is None:
        return None
    weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not total < np.inf:
        raise ValueError("sample_weight is too large: its sum is infinite in float64. Divide it by its maximum.")
    return weights


def checked_groups(groups, X) -> np.ndarray | None:
    """Groups of the rows of X, or None."""
    if groups is None:
        return None
    check_consistent_length(X, groups)
    groups = column_or_1d(groups, input_name="groups")
    if any(value is None or is_scalar_nan(value) or is_pandas_na(value) for value in groups.tolist()):
        raise ValueError("Input groups contains NaN or another missing value. Every row needs a group.")
    return groups


class TableRows(torch.Tensor):
    """Rows of a table, in which NaN marks a cell that is missing.

    A type of its own, so that complete rows of numbers need no look for NaN: the terms of objectives ask for it. What
    is computed from such rows is an ordinary tensor; rows of them are of this type. weights: of each input in the
    squared error, (n_inputs,), or None.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl
    weights = None

    @classmethod
    def of(cls, x: torch.Tensor, weights: torch.Tensor | None = None) -> "TableRows":
        rows = x.as_subclass(cls)
        rows.weights = weights
        return rows

    def __getitem__(self, rows):
        return self.of(super().__getitem__(rows), self.weights)


class Sample(NamedTuple):
    """Rows X, their weights, float64 (n_rows,), None if all count alike, and their groups, int (n_rows,), or None.

    copies: of each row that was given the place of it, or of its copy, in X, and -1 if it was left out; None if they
    are the same rows.
    """

    X: np.ndarray | sparse.csr_array
    weights: np.ndarray | None = None
    groups: np.ndarray | None = None
    copies: np.ndarray | None = None


def distinct(X, weights=None, groups=None) -> Sample:
    """Each row of X once, with the sum of the weights of its copies in the same group; those without weight left out.

    So a copy of a training row is never a validation row, and a weight of two is the same as a row given twice: where
    weights differ or rows repeat, their order is one that depends on the rows alone, not on how they were given.
    """
    given = None
    if weights is not None and not weights.all():
        given, kept = np.full(X.shape[0], -1), np.flatnonzero(weights)
        X, weights, groups = X[kept], weights[kept], None if groups is None else groups[kept]
    groups = None if groups is None else np.unique(groups, return_inverse=True)[1]
    _, first, copies = np.unique(row_digests(X, groups), return_index=True, return_inverse=True)
    if len(first) == X.shape[0] and (weights is None or (weights == 1).all()):
        if given is not None:
            given[kept] = np.arange(len(kept))
        return Sample(X, None, groups, given)
    weights = np.bincount(copies, weights).astype(np.float64)
    if given is not None:
        given[kept] = copies
    return Sample(X[first], weights, None if groups is None else groups[first], copies if given is None else given)


def stacked(first: Sample, second: Sample) -> Sample:
    """Rows of one, then those of the other, with their weights."""
    if sparse.issparse(first.X):
        X = sparse.vstack([first.X, sparse.csr_array(second.X)], format="csr")
    else:
        X = np.vstack([first.X, dense(second.X)])
    if first.weights is None and second.weights is None:
        return Sample(X)
    weights = [np.ones(part.X.shape[0]) if part.weights is None else part.weights for part in (first, second)]
    return Sample(X, np.concatenate(weights))


def row_digests(X, groups=None) -> np.ndarray:
    """A number for each row, the same for the same values in the same group: 64 bits, enough for 10 million rows."""
    digests = []
    for start in range(0, X.shape[0], rows_at_once(X.shape[1])):
        # sparse rows too: what is stored of them may differ where their values do not
        rows = np.ascontiguousarray(dense(X[start : start + rows_at_once(X.shape[1])])) + 0.0  # no negative zeros
        rows[np.isnan(rows)] = np.nan  # nor different ones
        tags = (
            [b""] * len(rows) if groups is None else [int(g).to_bytes(8, "little") for g in groups[start:][: len(rows)]]
        )
        digests += [hashlib.blake2b(r, digest_size=8, person=t).digest() for r, t in zip(rows, tags, strict=True)]
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def in_proportion(rows: torch.Tensor, weights: torch.Tensor, n_draws: int) -> torch.Tensor:
    """Draw from rows, in random order: each n_draws times its share of the weights, rounded up or down."""
    ends = weights.cumsum(0)
    places = (torch.arange(n_draws, dtype=torch.float64) + torch.rand((), dtype=torch.float64)) * (ends[-1] / n_draws)
    drawn = torch.searchsorted(ends, places).clamp_max(len(rows) - 1)
    return rows[drawn[torch.randperm(n_draws)].to(rows.device)]


def representative(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Rows, repeated in proportion to their weights: for whatever takes rows and knows no weights."""
    n_draws = int((weights.sum() / weights.min()).round().clamp(len(rows), MOST_DRAWS * len(rows)))
    return in_proportion(rows, weights, n_draws)


class SparseRows:
    """Rows of a sparse X as the network sees them: dense, float32, and made when they are asked for.

    In place of a tensor of all rows: ``x[rows]`` with a tensor of indices, ``len(x)``, ``x.shape``, ``x.device``.
    """

    def __init__(self, X: sparse.csr_array, mean: np.ndarray, scale: float, device: torch.device) -> None:
        self.X, self.mean, self.scale, self.device = X, mean, scale, device
        self.shape = torch.Size(X.shape)
        # divided here, so that a batch takes one subtraction in float32
        self.scaled = sparse.csr_array(((X.data / scale).astype(np.float32), X.indices, X.indptr), shape=X.shape)
        self.scaled_mean = (mean / scale).astype(np.float32)

    def __len__(self) -> int:
        return self.X.shape[0]

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        batch = self.scaled[rows.numpy(force=True)].toarray()
        batch -= self.scaled_mean
        return torch.from_numpy(batch).to(self.device)

    def principal_axes(self, n_axes: int, rows: torch.Tensor, weights: torch.Tensor) -> tuple[np.ndarray, ...]:
        """Mean, leading axes, sums of squares along them and in all, by Lanczos iteration without dense rows."""
        X, weights = self.X[rows.numpy(force=True)].astype(np.float64), weights.numpy(force=True)
        mean, roots = (weights @ X) / weights.sum(), np.sqrt(weights)
        total = (weights @ X.power(2)).sum() - weights.sum() * np.square(mean).sum()
        if not total > 0:
            return mean / self.scale - self.mean / self.scale, np.zeros((1, X.shape[1])), np.zeros(1), 0.0
        deviations = LinearOperator(
            X.shape,
            matvec=lambda v: roots * (X @ v.ravel() - mean @ v.ravel()),
            rmatvec=lambda u: (roots * u.ravel()) @ X - mean * (roots @ u.ravel()),
            dtype=np.float64,
        )
        first = np.random.RandomState(0).uniform(-1, 1, min(X.shape))  # ARPACK's own would not be the same again
        with threadpool_limits(1):  # the last bits depend on the number of threads
            _, singular, axes = svds(deviations, k=min(n_axes, min(X.shape) - 1), v0=first)
        order = np.argsort(-singular)
        squares = np.square(singular[order] / self.scale)
        return (mean - self.mean) / self.scale, axes[order], squares, max(total, 0.0) / self.scale**2
