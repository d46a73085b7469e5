"""Rows of X <-> what the network sees.

A scaler knows the columns: it checks X, learns from it, and takes rows there and back. What it has learned are the
fitted attributes of the estimator that are named in ``attributes``.
"""

import numpy as np
import torch
from sklearn.utils import gen_batches
from sklearn.utils.validation import validate_data

from ._training import ROWS_AT_ONCE

__all__ = ["Scaler"]


class Scaler:
    """Subtracts the mean of each column and divides all columns by one number, their root mean square deviation.

    With ``probabilities=True`` rows must be in [0, 1], the range of what the decoder gives, and stay as they are.
    """

    attributes = ("mean_", "scale_")

    def __init__(self, probabilities=False):
        self.probabilities = probabilities

    def validate(self, estimator, X, reset):
        """X as an array of numbers, float32 if it is that and float64 otherwise."""
        X = validate_data(estimator, X, reset=reset, dtype=[np.float64, np.float32])
        self._check_range(X)
        return X

    def _check_range(self, X):
        if self.probabilities and (X.min() < 0 or X.max() > 1):
            raise ValueError(
                f"X must be in [0, 1] where the decoder gives probabilities, got values from {X.min():g} to "
                f"{X.max():g}. Scale X, for example with MinMaxScaler(clip=True)."
            )

    def fit(self, X):
        """Learn from a valid X."""
        if self.probabilities:
            self.mean_, self.scale_ = np.zeros(X.shape[1]), 1.0
            return self
        self.mean_ = X.mean(axis=0, dtype=np.float64)
        with np.errstate(over="ignore"):
            squares = sum(np.square(X[rows] - self.mean_).sum() for rows in gen_batches(len(X), ROWS_AT_ONCE))
        if not np.isfinite(squares):
            raise ValueError(
                "X has values too large: their squares are infinite in float64. Standardize X, for example with "
                "StandardScaler."
            )
        self.scale_ = float(np.sqrt(squares / X.size)) or 1.0
        return self

    def restore(self, estimator):
        """Take what was learned from the attributes of a fitted estimator."""
        for name in self.attributes:
            setattr(self, name, getattr(estimator, name))
        return self

    def learned(self):
        """Fitted attributes of the estimator."""
        return {name: getattr(self, name) for name in self.attributes}

    @property
    def n_inputs(self):
        """Number of columns that the network sees."""
        return len(self.mean_)

    def network_options(self):
        """Keyword arguments for `_build_module`: what a network must know about the columns; here nothing more."""
        return {}

    def transform(self, x):
        """What the network sees of rows of a valid X, an array or a tensor."""
        return (x - _like(self.mean_, x)) / self.scale_

    def tensor(self, X, device):
        """What the network sees of all of X: float32, on the device."""
        x = np.empty((len(X), self.n_inputs), dtype=np.float32)
        for rows in gen_batches(len(X), ROWS_AT_ONCE):
            x[rows] = self.transform(X[rows])
        return torch.from_numpy(x).to(device)

    def inverse_transform(self, x_hat):
        """Rows in the units of X, from what the network gives: a tensor."""
        return x_hat * self.scale_ + _like(self.mean_, x_hat)


def _like(array, x):
    return torch.as_tensor(array, dtype=x.dtype, device=x.device) if isinstance(x, torch.Tensor) else array
