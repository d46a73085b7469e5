"""Rows of a table with categories <-> what the network sees: numbers with a scale each, and coded indicators."""

import numpy as np
import torch
from sklearn.utils import check_array, gen_batches
from sklearn.utils.validation import validate_data

from ._axes import LEAST_NOISE
from ._columns import MOST_CATEGORIES, Column, categorical_columns, check_names, library, read, table
from ._layers import Columns
from ._mapped import any_missing, is_mapped, pieces, rows_to_learn_from
from ._rows import ROWS_AT_ONCE, TableRows
from ._scaling import Scaler, check_pieces

__all__ = ["TableScaler", "coded", "fitted_scaler", "for_columns", "inputs_of", "scaler_for"]

# Shares of categories are at least this, so that they can be divided by.
LEAST_SHARE = 1e-6


class TableScaler(Scaler):
    r"""Numbers less their mean, divided by their standard deviation, and categories as indicators.

    The indicator of a category whose share of the rows is p is coded as :math:`(1\{x = k\} - p) / \sqrt{p}`, so that
    PCA of all inputs is a factor analysis of mixed data (Pages 2004, "Analyse factorielle de donnees mixtes"). A
    missing cell, or a category that the fit did not see, is NaN in all its inputs.

    member: the scaler of the estimator, which may learn more. weighs: whether columns count alike in the squared error.
    """

    attributes = (*Scaler.attributes, "_is_category_", "_deviations_", "_least_noise_", "_weighs_")

    learns_sums = False

    def __init__(self, member, is_category=None, weighs=True):
        super().__init__()
        self.member, self._is_category_, self._weighs_ = member, is_category, weighs
        self.attributes = tuple(dict.fromkeys((*member.attributes, *type(self).attributes)))

    def validate(self, estimator, X, reset, new=False):
        """Codes of categories and numbers, float64 (n_samples, n_features), NaN where they are missing."""
        codes, columns = coded(estimator, X, self._is_category_, reset, self._columns_)
        if reset:
            self._columns_, self._container_ = columns, library(X)
        return codes

    def fit(self, X, weights=None):
        self._missing_, X = any_missing(X), rows_to_learn_from(X)
        own = self.member.fit(X, weights).learned()  # of the member's scaler, what is more than mean and scale
        vars(self).update({name: value for name, value in own.items() if name not in TableScaler.attributes})
        weights = np.ones(len(X)) if weights is None else weights
        learned = [_learned(column, values, weights) for values, column in zip(X.T, self._columns_, strict=True)]
        self.mean_, self._deviations_, self._least_noise_ = map(np.concatenate, zip(*learned, strict=True))
        self.scale_ = 1.0
        return self

    def _sizes(self):
        return tuple(1 if column.categories is None else len(column.categories) for column in self._columns_)

    def network_options(self):
        categorical = tuple(bool(is_category) for is_category in self._is_category_)
        is_category = np.repeat(categorical, self._sizes())
        shares = torch.tensor(np.where(is_category, self.mean_, 1.0), dtype=torch.float32)
        least_noise = torch.tensor(self._least_noise_, dtype=torch.float32)
        columns = Columns(self._sizes(), categorical, shares, least_noise, self._missing_)
        return self.member.restore(self).network_options() | {"columns": columns}

    def weights(self):
        """Of the inputs in the squared error, (n_inputs,): one over the variance of all inputs of the column; or None.

        K categories have the variance K - 1 in all, and a number has one: without weights a column with forty would
        count as much as 39 numbers. A linear network is to be PCA of the inputs as they are, and has none.
        """
        if not self._weighs_:
            return None
        sizes = np.array(self._sizes())
        return np.repeat(1.0 / np.maximum(np.where(self._is_category_, sizes - 1, 1), 1), sizes)

    def keep_indicators(self):
        """Let indicators have no weight but one, as in a regression on them."""
        self._deviations_ = np.where(np.repeat(self._is_category_, self._sizes()), 1.0, self._deviations_)

    def column_scales(self):
        """Of each column, NaN for categories."""
        first = np.cumsum((0, *self._sizes()[:-1]))
        return np.where(self._is_category_, np.nan, self._deviations_[first])

    def log_scale(self, X):
        logarithms = np.where(self._is_category_, 0.0, np.log(self.column_scales()))
        return np.concatenate([~np.isnan(rows) @ logarithms for _, rows in pieces(X)])

    def transform(self, x):
        """Inputs (n, n_inputs) of codes and numbers (n, n_features), a tensor."""
        sizes = torch.tensor(self._sizes())
        column_of_input = torch.arange(len(sizes)).repeat_interleave(sizes)
        code = torch.cat([torch.arange(size) for size in sizes.tolist()]).to(x)
        values = x[:, column_of_input]
        is_category = torch.from_numpy(np.repeat(self._is_category_, self._sizes())).to(x.device)
        known = (values >= 0) & (values < sizes[column_of_input].to(x)) & (values == values.round())
        inputs = torch.where(is_category, torch.where(known, (values == code).to(x), torch.nan), values)
        return (inputs - torch.tensor(self.mean_).to(x)) / torch.tensor(self._deviations_).to(x)

    def tensor(self, X, device):
        """What the network sees of all of X: float32, on the device."""
        x = inputs_of(self, X).to(device)
        weights = self.weights()
        if weights is None:
            return TableRows.of(x) if self._missing_ or np.isnan(X).any() else x
        return TableRows.of(x, torch.tensor(weights, dtype=torch.float32, device=device))

    def inverse_transform(self, x_hat):
        """Numbers and codes of the most probable categories, (n, n_features)."""
        inputs = x_hat * torch.tensor(self._deviations_).to(x_hat) + torch.tensor(self.mean_).to(x_hat)
        parts = inputs.split(self._sizes(), dim=-1)
        columns = [
            part.argmax(-1, keepdim=True).to(part) if is_category else part
            for part, is_category in zip(parts, self._is_category_, strict=True)
        ]
        return torch.cat(columns, -1)

    def table(self, X):
        """A table of the library and with the names and dtypes that `fit` saw."""
        return table(X, self._columns_, self._container_)


def coded(estimator, X, is_category, reset, columns=None):
    """Codes of categories and numbers, float64 (n_samples, n_features), NaN where they are missing; and the columns.

    reset: whether the columns are to be learned; otherwise they are given.
    """
    mapped = is_mapped(X)
    X = check_array(X, dtype=None, ensure_all_finite=False) if library(X) is None and not mapped else X
    check_names(X)
    validate_data(estimator, X, reset=reset, skip_check_array=True)
    if mapped:
        check_pieces(X, reset)
        return X, columns_of_codes(X, is_category) if reset else columns
    codes, columns = read(X, is_category, None if reset else columns)
    if reset and len(codes) and (empty := np.isnan(codes).all(axis=0)).any():
        raise ValueError(f"Column {columns[int(empty.argmax())].name!r} has no observed value. Drop it.")
    return check_array(codes, ensure_all_finite="allow-nan", input_name="X"), columns


def columns_of_codes(X, is_category):
    """The columns of a memory map, whose categories have to be their codes already: 0, 1, 2 and so on."""
    most = np.zeros(X.shape[1])
    for start, rows in pieces(X):
        codes = rows[:, is_category]
        if not (np.isnan(codes) | ((codes >= 0) & (codes == np.rint(codes)))).all():
            raise ValueError(
                f"Categories of a memory map must be codes 0, 1, 2, ..., got others from row {start.start} on. "
                "skae.memory_map writes such a map."
            )
        most = np.fmax(most, np.nanmax(rows, axis=0, initial=0.0))
    if (most[is_category] >= MOST_CATEGORIES).any():
        raise ValueError(
            f"A column of categories has more than {MOST_CATEGORIES}. Drop it, or join those that are rare."
        )
    return tuple(
        Column(place, np.result_type(X.dtype, np.float32), tuple(map(float, range(int(n) + 1))) if is_cat else None)
        for place, (n, is_cat) in enumerate(zip(most, is_category, strict=True))
    )


def inputs_of(scaler, X):
    """What the network sees of all of a valid X, by a scaler that takes tensors: float32."""
    x = torch.empty((len(X), scaler.n_inputs), dtype=torch.float32)
    for rows in gen_batches(len(X), ROWS_AT_ONCE):
        x[rows] = scaler.transform(torch.from_numpy(np.array(X[rows], dtype=np.float64)))
    return x


def _learned(column, values, weights):
    """Of the inputs of a column: means, what they are divided by, and the smallest noise variance."""
    seen = ~np.isnan(values)
    values, counts = values[seen], weights[seen]
    if not counts.sum() > 0:
        raise ValueError(f"Column {column.name!r} has no observed value in a row whose weight is not zero.")
    if column.categories is not None:
        shares = np.bincount(values.astype(int), counts, len(column.categories)) / counts.sum()
        shares = np.maximum(shares, LEAST_SHARE)
        return shares, np.sqrt(shares), np.full(len(shares), LEAST_NOISE)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.average(values, weights=counts)
        deviation = float(np.sqrt(np.average(np.square(values - mean), weights=counts)))
    if not np.isfinite(deviation):
        raise ValueError(
            f"Column {column.name!r} has values too large: their squares are infinite in float64. Divide it by its "
            "maximum."
        )
    deviation = deviation or 1.0
    least = max((0.5 * gap_of_atoms(values) / deviation) ** 2, LEAST_NOISE)
    return np.array([mean]), np.array([deviation]), np.array([least])


def gap_of_atoms(values):
    """Smallest difference of the values of a column that has few different ones, so that they repeat; otherwise 0."""
    distinct = np.unique(values)
    return np.diff(distinct).min() if 1 < len(distinct) <= len(values) / 2 else 0.0


def fitted_scaler(builder, estimator):
    """The scaler of a fitted estimator, from its attributes."""
    scaler = builder._build_scaler()
    if scaler.takes_tables and getattr(estimator, "_columns_", None) is not None:
        scaler = TableScaler(scaler)
    return scaler.restore(estimator)


def scaler_for(estimator, X):
    """The scaler that a fit to X takes: that of the estimator, or one for tables if columns of X are categories."""
    scaler = estimator._build_scaler()
    is_category = categorical_columns(X, estimator.categorical_features) if scaler.takes_tables else None
    return scaler if is_category is None else for_columns(scaler, is_category, bool(estimator._hidden_layer_sizes()))


def for_columns(scaler, is_category, weighs=False):
    """A scaler of numbers, or one for tables that has it as member if some columns are categories."""
    if not is_category.any():
        return scaler
    if scaler.probabilities:
        raise ValueError(
            "X has categories, but a decoder that gives probabilities of numbers in [0, 1] takes none. Use "
            "likelihood='gaussian' or loss='squared_error', with which categories have probabilities of their own."
        )
    return TableScaler(scaler, is_category, weighs)
