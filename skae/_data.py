"""What trains and what validates: from X, weights, groups and rows of the caller's own to a `Data` of indices."""

import torch

from ._rows import checked_weights, distinct, stacked
from ._training import Data, split

__all__ = ["all_of", "given_validation", "with_validation"]


def _tensor(array):
    return None if array is None else torch.from_numpy(array)


def all_of(sample, scaler, device):
    """All rows of a sample, to train with."""
    x = scaler.tensor(sample.X, device)
    rows = torch.arange(len(x), device=device)
    return Data(x, rows, rows, rows, _tensor(sample.weights))


def with_validation(sample, held_out, n_validation, scaler, device, seed):
    """Rows of a sample, of which n_validation are set aside, or those held out validate."""
    n_rows = sample.X.shape[0]
    n_validation = 0 if held_out is not None else n_validation
    if sample.groups is not None and n_validation and (sample.groups == sample.groups[0]).all():
        raise ValueError(
            "groups has a single group, so that no rows can be set aside for validation. Pass X_val, or use "
            "early_stopping=False."
        )
    rows, training, validation = split(n_rows, n_validation, seed, device, _tensor(sample.groups))
    if held_out is not None:
        sample = stacked(sample, held_out)
        validation = torch.arange(n_rows, sample.X.shape[0], device=device)
    return Data(scaler.tensor(sample.X, device), rows, training, validation, _tensor(sample.weights))


def given_validation(estimator, scaler, X_val, sample_weight_val):
    """The validation rows that a caller of `fit` gives, or None."""
    if X_val is None:
        if sample_weight_val is not None:
            raise ValueError("sample_weight_val is provided, but X_val was not provided.")
        return None
    if not estimator.early_stopping:
        raise ValueError(
            f"X_val is passed to fit, but {type(estimator).__name__} does not use validation rows: early_stopping is "
            "False. Set early_stopping=True, where it is a parameter, or leave X_val out."
        )
    X_val = scaler.validate(estimator, X_val, reset=False, new=True)
    return distinct(X_val, checked_weights(sample_weight_val, X_val))
