"""What trains and what validates: from X, weights, groups and rows of the caller's own to a `Data` of indices."""

import math
import numbers

import numpy as np
import torch
from sklearn.model_selection import GroupKFold, KFold

from ._distributed import alone, several, total
from ._mapped import EveryRow, MappedRows, any_missing, is_mapped, rows_to_hold_out, some_rows
from ._rows import Sample, checked_weights, distinct, stacked
from ._training import Data, Fold, split, trains_together

__all__ = [
    "all_of",
    "data_of",
    "facts_of",
    "given_validation",
    "sample_and_folds",
]

# Parameters that processes that fit together need not have in common.
APART = ("device", "random_state")


def _tensor(array):
    return None if array is None else torch.from_numpy(array)


def sample_and_folds(X, weights, groups, splits, seed):
    """Each row once, and pairs of training and validation rows: of so many folds, or as splits of all rows have them.

    None without splits. Folds are of whole groups and in random order. Equal rows count as one where they are on the
    same sides of all splits. Rows of a memory map are taken as they come.
    """
    if several():
        kept = slice(None) if weights is None else np.flatnonzero(weights)
        return Sample(X, None) if weights is None else Sample(X[kept], weights[kept]), None
    if is_mapped(X):
        if weights is not None or groups is not None or splits is not None:
            raise ValueError(
                "sample_weight, groups and cv need X in memory, and X is a memory map that is read in blocks. Use "
                "np.array(X) if it fits into memory; otherwise leave them out."
            )
        return Sample(X), None
    if splits is None:
        return distinct(X, weights, groups), None
    if isinstance(splits, numbers.Integral):
        sample = distinct(X, weights, groups)
        _check_groups(sample.groups)
        if sample.groups is None and splits > sample.X.shape[0]:
            raise ValueError(f"cv={splits} is more than the {sample.X.shape[0]} rows of X that differ and have weight.")
        splitter = (KFold if groups is None else GroupKFold)(splits, shuffle=True, random_state=seed)
        return sample, list(splitter.split(sample.X, groups=sample.groups))
    sides = np.zeros((X.shape[0], len(splits), 2), bool)
    for place, pair in enumerate(splits):
        try:
            sides[pair[0], place, 0], sides[pair[1], place, 1] = True, True
        except (IndexError, TypeError, ValueError) as error:
            message = f"cv must give pairs of training and test indices of the {X.shape[0]} rows of X: {error}."
            raise ValueError(message) from error
    kept = slice(None) if weights is None else np.flatnonzero(weights)
    sides, codes = np.unique(sides[kept], axis=0, return_inverse=True)
    sample = distinct(X[kept], None if weights is None else weights[kept], codes.ravel())
    sides = sides[sample.groups]
    folds = [tuple(np.flatnonzero(sides[:, place, side]) for side in (0, 1)) for place in range(len(splits))]
    if not folds or not all(len(part) for fold in folds for part in fold):
        raise ValueError(
            "cv gives no folds, or one without training or validation rows whose weight is not zero. Use folds that "
            "have both."
        )
    return sample, folds


def all_of(sample, scaler, device):
    """All rows of a sample train, and the same validate."""
    if is_mapped(sample.X):
        rows = EveryRow(*sample.X.shape, seed=0)
        return Data(MappedRows(sample.X, scaler, device), rows, (Fold(rows, rows),))
    x = scaler.tensor(sample.X, device)
    rows = torch.arange(len(x), device=device)
    return Data(x, rows, (Fold(rows, rows),), weights=_tensor(sample.weights))


def data_of(estimator, sample, folds, held_out, scaler, seed):
    """The rows of a sample as tensors, and which of them train and validate."""
    device = estimator._device()
    if folds is not None:
        return _of_folds(sample, folds, scaler, device)
    n_here, n_rows = sample.X.shape[0], total(sample.X.shape[0])
    n_validation = min(math.ceil(estimator._n_validation_rows(n_rows) * n_here / n_rows), n_here - 1)
    refit = estimator._refits(n_rows) and not several()
    return _of_validation_rows(sample, held_out, n_validation, scaler, device, seed, refit)


def _of_validation_rows(sample, held_out, n_validation, scaler, device, seed, refit):
    """Rows of a sample, of which n_validation are set aside, or those held out validate."""
    n_rows = sample.X.shape[0]
    if is_mapped(sample.X):
        return _of_validation_rows_of_a_map(sample.X, held_out, n_validation, scaler, device, seed)
    n_validation = 0 if held_out is not None else n_validation
    if n_validation:
        _check_groups(sample.groups)
    rows, training, validation = split(n_rows, n_validation, seed, device, _tensor(sample.groups))
    if held_out is not None:
        sample = stacked(sample, held_out)
        validation = torch.arange(n_rows, sample.X.shape[0], device=device)
    x = scaler.tensor(sample.X, device)
    return Data(x, rows, (Fold(training, validation),), refit and n_validation > 0, _tensor(sample.weights))


def _of_validation_rows_of_a_map(X, given, n_validation, scaler, device, seed):
    """The same for a memory map: few rows are enough to compare losses, and there is no refit for their sake."""
    every = EveryRow(*X.shape, seed)
    if given is not None:
        x = MappedRows(X, scaler, device, beside=given.X)
        return Data(x, every, (Fold(every, torch.arange(len(X), len(x))),))
    x = MappedRows(X, scaler, device)
    if not n_validation:
        return Data(x, every, (Fold(every, every),))
    validation = rows_to_hold_out(*X.shape, n_validation, seed)
    return Data(x, every, (Fold(EveryRow(*X.shape, seed, validation), validation),))


def _of_folds(sample, folds, scaler, device):
    """Rows of a sample that train and validate in turn."""
    data = all_of(sample, scaler, device)
    folds = tuple(Fold(*(torch.from_numpy(part).to(device) for part in fold)) for fold in folds)
    return data._replace(folds=folds, refit=True)


def facts_of(estimator, scaler, sample, held_out, groups, splits):
    """What must be the same in all processes that fit together; ValueError for what they cannot do."""
    if not several():
        return {}
    given = {
        "A search or a fit with cv": splits is not None or trains_together.get() is not None,
        "A fit with groups": groups is not None,
        "A fit to categories, or with a condition": not scaler.learns_sums,
        "A fit to missing cells": any(part is not None and any_missing(part.X) for part in (sample, held_out)),
    }
    for what in (what for what, present in given.items() if present):
        alone(what)
    if sample.X.shape[0] < 2:
        raise ValueError(
            "A process of the group has fewer than two rows whose weight is not zero. Use fewer processes."
        )
    simple = bool, int, float, str, tuple, type(None), np.integer, np.floating
    parameters = estimator.get_params(deep=False).items()
    return {"the class": type(estimator).__name__} | {
        **{name: value for name, value in parameters if isinstance(value, simple) and name not in APART},
        "the number of features": sample.X.shape[1],
        "the names of features": getattr(estimator, "feature_names_in_", np.empty(0)).tolist(),
        "whether there is a sample_weight": sample.weights is not None,
        "whether there is an X_val": held_out is not None,
        "the fit to continue": (getattr(scaler, "scale_", None), getattr(estimator, "n_samples_", None)),
    }


def _check_groups(groups):
    if groups is not None and (groups == groups[0]).all():
        raise ValueError(
            "groups has a single group, so that no rows can be set aside for validation. Pass X_val, or use "
            "early_stopping=False."
        )


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
    if is_mapped(X_val):
        if sample_weight_val is not None:
            raise ValueError("sample_weight_val needs X_val in memory. Use np.array(X_val).")
        return Sample(some_rows(X_val))
    return distinct(X_val, checked_weights(sample_weight_val, X_val))
