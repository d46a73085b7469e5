"""Rows of X <-> what a conditional network sees: modelled columns, and beside them the condition."""

import numbers
from types import SimpleNamespace

import numpy as np
import torch
from scipy import sparse
from sklearn.utils import check_array
from sklearn.utils._indexing import _get_column_indices

from ._columns import Column, categorical_columns, is_missing, library, read, table
from ._mapped import missing_columns, pieces, rows_to_learn_from
from ._rows import TableRows
from ._scaling import Scaler
from ._tables import TableScaler, coded, for_columns, inputs_of

__all__ = ["ConditionalScaler", "WithoutCondition"]


class WithoutCondition(Scaler):
    """The scaler of VAE, with the fitted attributes of a condition of no columns."""

    attributes = (*Scaler.attributes, "condition_indices_", "n_conditions_")
    condition_indices_, n_conditions_ = np.empty(0, dtype=int), 0


class ConditionalScaler(Scaler):
    """What the network sees of a row: the modelled columns as VAE sees them, then the condition.

    Numbers of the condition are standardized, categories are indicators less their shares, and a missing cell is zero,
    the mean. For each column of the condition with missing cells in the fit, one input more tells where they are.
    """

    attributes = (
        *Scaler.attributes,
        "condition_indices_",
        "n_conditions_",
        "_rest_",
        "_incomplete_",
        "_modelled_",
        "_given_",
    )
    takes_tables = False  # it has a scaler for either part, which may be one for tables
    learns_sums = False

    def __init__(self, condition_features, probabilities):
        super().__init__(probabilities)
        self.condition_features = list(condition_features)

    def validate(self, estimator, X, reset, new=False):
        """Codes of categories and numbers, (n_samples, n_features), NaN where they are missing."""
        if sparse.issparse(X):
            raise TypeError(
                "Sparse data was passed, but ConditionalVAE with condition_features needs dense data. Use X.toarray()."
            )
        is_category = categorical_columns(X, estimator.categorical_features) if reset else self._is_category
        if is_category is None:
            codes, columns = self.numbers(estimator, X, reset), None
        else:
            codes, columns = coded(estimator, X, is_category, reset, self._columns_)
        if reset:
            self._columns_, self._container_ = columns, None if columns is None else library(X)
            self._choose(X, codes.shape[1])
            self._scalers()  # raises what is to be said of the columns before it is of their values
        return self._in_range(codes, new, self._rest_)

    @property
    def _is_category(self):
        """Which columns of X are categories, None if it is not a table."""
        return None if self._columns_ is None else np.array([c.categories is not None for c in self._columns_])

    def _choose(self, X, n_features):
        """Which columns are the condition and which are modelled."""
        indices = np.asarray(_get_column_indices(X, self.condition_features), dtype=int)
        if len(np.unique(indices)) < len(indices):
            raise ValueError(f"condition_features name a column twice: {self.condition_features}.")
        if len(indices) >= n_features:
            raise ValueError("condition_features are all columns of X: at least one must be left to be modelled.")
        self.condition_indices_, self._rest_ = indices, np.setdiff1d(np.arange(n_features), indices)

    def _scalers(self):
        """Of the modelled columns and of the condition, not yet fitted."""
        n_features = len(self._rest_) + len(self.condition_indices_)
        columns = self._columns_ or tuple(Column(place, None, None) for place in range(n_features))
        is_category = np.array([c.categories is not None for c in columns])
        modelled = for_columns(Scaler(self.probabilities), is_category[self._rest_])
        given = TableScaler(Scaler(), is_category[self.condition_indices_])
        for scaler, part in ((modelled, self._rest_), (given, self.condition_indices_)):
            scaler._columns_ = tuple(columns[place] for place in part) if isinstance(scaler, TableScaler) else None
        return modelled, given

    def fit(self, X, weights=None):
        missing, X = missing_columns(X), rows_to_learn_from(X)
        self.modelled, self.given = self._scalers()
        self.modelled.fit(X[:, self._rest_], weights)
        condition = X[:, self.condition_indices_]
        self.given.fit(condition, weights).keep_indicators()
        self._incomplete_ = np.flatnonzero(missing[self.condition_indices_])
        self.modelled._missing_ = bool(missing[self._rest_].any())
        self.mean_, self.scale_, self._missing_ = self.modelled.mean_, self.modelled.scale_, self.modelled._missing_
        self.n_conditions_ = self.given.n_inputs + len(self._incomplete_)
        return self

    def expect(self, held_out):
        if held_out is not None:
            self.modelled.expect(held_out._replace(X=held_out.X[:, self._rest_]))
            self._missing_ = self.modelled._missing_

    def learned(self):
        self._modelled_, self._given_ = self.modelled.learned(), self.given.learned()
        return super().learned()

    def restore(self, estimator):
        super().restore(estimator)
        self.modelled, self.given = self._scalers()
        self.modelled.restore(SimpleNamespace(**self._modelled_))
        self.given.restore(SimpleNamespace(**self._given_))
        return self

    @property
    def n_inputs(self):
        return len(self.mean_) + self.n_conditions_

    def network_options(self):
        return self.modelled.network_options() | {"n_conditions": self.n_conditions_}

    def column_scales(self):
        return self.modelled.column_scales()

    def log_scale(self, X):
        parts = [(len(rows), self.modelled.log_scale(rows[:, self._rest_])) for _, rows in pieces(X)]
        return np.concatenate([np.broadcast_to(values, n_rows) for n_rows, values in parts])

    def transform(self, x):
        """Inputs (n, n_inputs) of codes and numbers (n, n_features), a tensor."""
        return torch.cat([self.modelled.transform(x[:, self._rest_]), self.condition(x[:, self.condition_indices_])], 1)

    def condition(self, x):
        """Inputs of a condition, (n, n_conditions), from its codes and numbers, (n, n_condition_features), a tensor."""
        return torch.cat([self.given.transform(x).nan_to_num(0.0), x[:, self._incomplete_].isnan().to(x)], 1)

    def tensor(self, X, device):
        x = inputs_of(self, X).to(device)
        return TableRows.of(x) if self._missing_ or np.isnan(X[:, self._rest_]).any() or self.modelled._columns_ else x

    def inverse_transform(self, x_hat):
        """Modelled columns in the units of X, among all columns, (n, n_features): NaN for the condition."""
        out = x_hat.new_full((len(x_hat), len(self._rest_) + len(self.condition_indices_)), torch.nan)
        out[:, self._rest_] = self.modelled.inverse_transform(x_hat)
        return out

    def table(self, X):
        return X if self._columns_ is None else table(X, self._columns_, self._container_)

    def given_codes(self, condition, n_rows):
        """Codes and numbers of a condition as a caller gives it, (n_rows, n_condition_features)."""
        columns = self.given._columns_
        cells = np.atleast_2d(np.asarray(condition, dtype=object))
        if cells.shape not in ((1, len(columns)), (n_rows, len(columns))):
            raise ValueError(
                f"condition must have shape ({len(columns)},) or (n_samples, n_condition_features) = ({n_rows}, "
                f"{len(columns)}), got {np.shape(condition)}."
            )
        for column, values in zip(columns, cells.T, strict=True):
            for value in values:
                _check_known(value, column)
        codes, _ = read(cells, self.given._is_category_, columns)
        return np.repeat(check_array(codes, ensure_all_finite="allow-nan"), n_rows // len(codes), axis=0)


def _check_known(value, column):
    """ValueError if a value of a condition is not missing, a number, or a category that fit saw."""
    if is_missing(value) or (column.categories is not None and value in column.categories):
        return
    if column.categories is not None:
        raise ValueError(f"condition has the category {value!r} of column {column.name!r}, which fit did not see.")
    if not isinstance(value, numbers.Real):
        raise ValueError(f"condition has {value!r} in column {column.name!r}, which must be a number.")
