"""Rows of X <-> what the network sees.

A scaler knows the columns: it checks X, learns from it, and takes rows there and back. What it has learned are the
fitted attributes of the estimator that are named in ``attributes``.
"""

import math
import warnings

import numpy as np
import torch
from scipy import sparse
from sklearn import config_context
from sklearn.utils import gen_batches
from sklearn.utils.sparsefuncs import mean_variance_axis
from sklearn.utils.validation import validate_data

from ._axes import LEAST_NOISE
from ._distributed import moments, several
from ._layers import Columns
from ._mapped import any_missing, indices, is_mapped, pieces
from ._rows import ROWS_AT_ONCE, SparseRows, TableRows, rows_at_once

__all__ = ["Scaler", "check_pieces", "warn_of_another_scale"]

# Rows that are scaled to [0, 1] may be outside by so many units in the last place: MinMaxScaler's are.
ROUNDING = 16
# Share of the entries of new rows, of sparse ones those that are stored, that may be outside, however far.
MOST_OUTSIDE = 0.1
# Fewer rows tell little of their scale.
LEAST_ROWS = 10


class Scaler:
    """Subtracts the mean of each column and divides all columns by one number, their root mean square deviation.

    With ``probabilities=True`` rows must be in [0, 1], the range of what the decoder gives, and stay as they are. Cells
    may be missing, NaN: mean and scale are those of the others.
    """

    attributes = ("mean_", "scale_", "_missing_", "_columns_", "_container_")
    # whether cells of the fit were missing; its columns and library, if it was a table with categories
    _missing_, _columns_, _container_ = False, None, None
    takes_tables = True
    # whether all that it learns are sums over rows, which processes that fit together can add up
    learns_sums = True

    def __init__(self, probabilities=False):
        self.probabilities = probabilities

    def validate(self, estimator, X, reset, new=False):
        """X as an array of numbers or a csr_array, float32 if it is that and float64 otherwise.

        new: whether these are rows to apply the estimator to, not rows to fit it to.
        """
        return self._in_range(self.numbers(estimator, X, reset), new)

    def numbers(self, estimator, X, reset):
        """X as an array of finite numbers, NaN where they are missing, or a csr_array; a large memory map as it is."""
        if is_mapped(X):
            validate_data(estimator, X, reset=reset, skip_check_array=True)
            check_pieces(X, reset)
            return X
        with config_context(array_api_dispatch=False):  # a tensor is taken as the NumPy array that it can be
            X = validate_data(
                estimator,
                X,
                reset=reset,
                accept_sparse="csr",
                dtype=[np.float64, np.float32],
                ensure_all_finite="allow-nan",
            )
        if sparse.issparse(X):
            if np.isnan(X.data).any():
                raise ValueError("Input X contains NaN, which a sparse matrix cannot have. Use X.toarray().")
            if not X.has_canonical_format:
                X = X.copy()
                X.sum_duplicates()
        elif reset and (empty := np.isnan(X).all(axis=0)).any():
            raise ValueError(f"X has columns without an observed value: {np.flatnonzero(empty).tolist()}. Drop them.")
        return X

    def _in_range(self, X, new, columns=slice(None)):
        """X cut to [0, 1] if it must be there, or some of its columns.

        Of a fit only rounding is cut. Of new rows more is, as a scaler fitted to others leaves some outside; but not of
        rows that were hardly scaled as in the fit: far outside, and not a few of them.
        """
        values = X.data if sparse.issparse(X) else X
        if not self.probabilities or not values.size:
            return X
        least, most, n_outside, n_values = _range(values, columns)
        tolerance = ROUNDING * np.finfo(np.result_type(values.dtype, np.float32)).eps
        outside = not (least >= -tolerance and most <= 1 + tolerance)
        if outside and new:
            outside = not (least > -1 and most < 2) and n_outside > MOST_OUTSIDE * n_values
        if outside:
            raise ValueError(
                f"X must be in [0, 1] where the decoder gives probabilities, got values from {least:g} to "
                f"{most:g}. Scale X, for example with MinMaxScaler(clip=True)."
            )
        if not n_outside or is_mapped(X):  # a map is cut as it is read
            return X
        if sparse.issparse(X):
            return sparse.csr_array((values.clip(0, 1), X.indices, X.indptr), shape=X.shape)
        values = values.copy()
        values[:, columns] = values[:, columns].clip(0, 1)
        return values

    def fit(self, X, weights=None):
        """Learn from a valid X, whose rows count as much as their weights."""
        self._missing_ = any_missing(X)
        if self.probabilities:
            self.mean_, self.scale_ = np.zeros(X.shape[1]), 1.0
            return self
        with np.errstate(over="ignore", invalid="ignore"):
            self.mean_, squares, n_cells = _of_all(*_moments(X, weights))
        if not np.isfinite(squares):
            raise ValueError(
                "X has values too large: their squares are infinite in float64. Standardize X, for example with "
                "StandardScaler."
            )
        self.scale_ = float(np.sqrt(squares / n_cells)) or 1.0
        return self

    def expect(self, held_out):
        """Let the network be one for missing cells if only the validation rows have any."""
        if held_out is not None:
            self._missing_ = self._missing_ or any_missing(held_out.X)

    def restore(self, estimator):
        """Take what was learned from the attributes of a fitted estimator."""
        for name in self.attributes:
            setattr(self, name, getattr(estimator, name, getattr(self, name, None)))
        return self

    def learned(self):
        """Fitted attributes of the estimator."""
        return {name: getattr(self, name) for name in self.attributes}

    @property
    def n_inputs(self):
        """Number of columns that the network sees."""
        return len(self.mean_)

    def network_options(self):
        """Keyword arguments for `_build_module`: what a network must know about the columns, if cells are missing."""
        if not self._missing_:
            return {}
        n_columns = len(self.mean_)
        sizes, categorical = (1,) * n_columns, (False,) * n_columns
        ones = torch.ones(n_columns)
        return {"columns": Columns(sizes, categorical, shares=ones, least_noise=LEAST_NOISE * ones, missing=True)}

    def column_scales(self):
        """What each column of X is divided by, (n_features,)."""
        return np.full(len(self.mean_), self.scale_)

    def log_scale(self, X):
        """Logarithm by which the density of what the network sees of a row exceeds that of the row of a valid X."""
        if not any_missing(X):
            return len(self.mean_) * math.log(self.scale_)
        counts = [(~np.isnan(rows)).sum(axis=1) for _, rows in pieces(X)]
        return np.concatenate(counts) * math.log(self.scale_)

    def transform(self, x):
        """What the network sees of rows of a valid X, a dense array or a tensor."""
        return x.clip(0, 1) if self.probabilities else (x - _like(self.mean_, x)) / self.scale_

    def tensor(self, X, device):
        """What the network sees of all of X: float32, on the device; of a sparse X, rows that are dense when needed."""
        if sparse.issparse(X):
            return SparseRows(X, self.mean_, self.scale_, device)
        x = np.empty((len(X), self.n_inputs), dtype=np.float32)
        for rows in gen_batches(len(X), ROWS_AT_ONCE):
            x[rows] = self.transform(X[rows])
        x = torch.from_numpy(x).to(device)
        return TableRows.of(x) if self._missing_ or np.isnan(X).any() else x

    def inverse_transform(self, x_hat):
        """Rows in the units of X, from what the network gives: a tensor."""
        return x_hat * self.scale_ + _like(self.mean_, x_hat)

    def table(self, X):
        """Rows as `inverse_transform` of the estimator gives them: an array of numbers."""
        return X


def _range(values, columns):
    """Least and most of numbers, but of 0 and 1 at least, how many of them are outside [0, 1], and how many there are.

    Of an array of rows those in some columns.
    """
    least, most, n_outside, n_values = 1.0, 0.0, 0, 0
    for rows in (rows for _, rows in pieces(values)) if is_mapped(values) else [values]:
        part = rows[..., columns]
        least, most = min(least, np.nanmin(part, initial=1.0)), max(most, np.nanmax(part, initial=0.0))
        n_outside, n_values = n_outside + np.count_nonzero((part < 0) | (part > 1)), n_values + part.size
    return least, most, n_outside, n_values


def warn_of_another_scale(name, scaler, data):
    """Warn if rows are of another order of magnitude than those that set mean and scale."""
    if scaler.probabilities or len(data.rows) < LEAST_ROWS:
        return
    n_columns, squares, n_cells = len(scaler.mean_), 0.0, 0
    for part in indices(data.rows).split(rows_at_once(n_columns)):
        values = data.x[part][:, :n_columns].cpu().double()
        squares, n_cells = squares + float(values.square().nansum()), n_cells + int((~values.isnan()).sum())
    size = math.sqrt(squares / max(n_cells, 1))
    if not 0.1 < size < 10:
        warnings.warn(
            f"The deviations of these rows from the mean are {size:.2g} times those of the rows that set mean and "
            f"scale, with which {name} continues: it will hardly learn from both. Call fit with rows of both kinds.",
            stacklevel=4,
        )


def check_pieces(X, reset):
    """ValueError if a memory map has infinite cells or, if it is one to fit to, a column without an observed value."""
    if X.dtype.kind not in "biuf":
        raise ValueError(f"A memory map must be one of numbers, got the dtype {X.dtype}.")
    if X.dtype.kind != "f":
        return
    observed = np.zeros(X.shape[1], dtype=bool)
    for start, rows in pieces(X):
        if np.isinf(rows).any():
            raise ValueError(f"Input X contains infinity, between rows {start.start} and {start.stop}.")
        observed |= ~np.isnan(rows).all(axis=0)
    if reset and not observed.all():
        raise ValueError(f"X has columns without an observed value: {np.flatnonzero(~observed).tolist()}. Drop them.")


def _moments(X, weights):
    """Mean of each column, the sum of the squared deviations from it over all columns, and of how many cells."""
    if is_mapped(X):
        return _moments_by_pieces(X)
    if not sparse.issparse(X) and np.isnan(X).any():
        return _observed_moments(X, np.ones(len(X)) if weights is None else weights)
    n_rows = X.shape[0] if weights is None else weights.sum()
    return *_complete_moments(X, weights), n_rows * X.shape[1]


def _of_all(mean, squares, n_cells):
    """The same of the rows of all processes that fit together."""
    if not several():
        return mean, squares, n_cells
    given = torch.from_numpy(mean), torch.tensor(squares, dtype=torch.float64), n_cells / len(mean)
    mean, squares, n_rows = moments(*given)
    return mean.numpy(), float(squares), n_rows * len(mean)


def _moments_by_pieces(X):
    sums, counts = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    for _, rows in pieces(X):
        sums, counts = sums + np.nansum(rows, axis=0, dtype=np.float64), counts + (~np.isnan(rows)).sum(axis=0)
    mean = sums / counts
    return mean, sum(np.nansum(np.square(rows - mean)) for _, rows in pieces(X)), counts.sum()


def _observed_moments(X, weights):
    counts = weights[:, None] * ~np.isnan(X)
    mean = np.nansum(weights[:, None] * X, axis=0) / np.maximum(counts.sum(axis=0), np.finfo(np.float64).tiny)
    return mean, np.nansum(weights[:, None] * np.square(X - mean)), counts.sum()


def _complete_moments(X, weights):
    if sparse.issparse(X):
        weights = np.ones(X.shape[0]) if weights is None else weights
        mean, variance = mean_variance_axis(X.astype(np.float64), axis=0, weights=weights)
        return mean, variance.sum() * weights.sum()
    pieces = list(gen_batches(len(X), ROWS_AT_ONCE))
    if weights is None:
        mean = X.mean(axis=0, dtype=np.float64)
        return mean, sum(np.square(X[rows] - mean).sum() for rows in pieces)
    weights = weights[:, None]  # sums, not matrix products: their last bits depend on the number of threads
    mean = sum((weights[rows] * X[rows]).sum(axis=0) for rows in pieces) / weights.sum()
    return mean, sum((weights[rows] * np.square(X[rows] - mean)).sum() for rows in pieces)


def _like(array, x):
    # a copy: an array that joblib has mapped cannot be written to, of which as_tensor warns
    return torch.tensor(array, dtype=x.dtype, device=x.device) if isinstance(x, torch.Tensor) else array
