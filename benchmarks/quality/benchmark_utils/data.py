"""From what a file or a function gives to what the objective takes, or one line that says what is wrong with it.

A data set is a dict: X (n, d) float64; y (n,) or None; kind, "table" (to be standardized) or "pictures" (square, to be
divided by their maximum); target, "classes", "number" or None.
"""

import hashlib
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

MOST_CLASSES = 50  # a target of whole numbers with more values than this is a number


def fingerprint(paths):
    """Changes if one of the files does; what is not there counts as empty."""
    contents = (Path(path).read_bytes() if Path(path).is_file() else b"" for path in paths)
    return hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).hexdigest()


def offer(load, *arguments):
    """What load(*arguments) gives, checked; or dict(problem=...), for which the objective skips the data set."""
    try:
        return check(**load(*arguments))
    except Exception as error:  # whatever is wrong with a file or a network is one line
        said = " ".join(str(error).split()) or type(error).__name__
        return dict(problem=said if isinstance(error, ValueError) else f"{type(error).__name__}: {said}")


def check(X, y=None, kind="table", target=None):
    """The data set, if methods can be compared on it; ValueError otherwise."""
    X = np.asarray(X, dtype=np.float64)
    if X.ndim != 2 or len(X) < 20 or X.shape[1] < 2:
        raise ValueError(f"X has shape {X.shape}: at least 20 rows and 2 columns are needed")
    if np.isnan(X).any():
        raise ValueError(f"X contains NaN in {np.isnan(X).any(axis=1).sum()} rows: impute or drop them first")
    if np.isinf(X).any():
        raise ValueError("X contains infinity")
    if (X[0] == X).all():
        raise ValueError("all columns of X are constant")
    if y is not None:
        if len(y) != len(X):
            raise ValueError(f"X has {len(X)} rows, y has {len(y)}")
        if pd.isna(y).any():
            raise ValueError(f"the target is missing in {pd.isna(y).sum()} rows: drop them first")
        target = target or target_of(y)
        if target == "classes" and len(np.unique(y)) > len(y) // 4:
            raise ValueError(
                f"the target has {len(np.unique(y))} classes in {len(y)} rows: too few of each to learn from"
            )
        y = np.unique(y, return_inverse=True)[1] if target == "classes" else np.asarray(y, dtype=np.float64)
        if len(np.unique(y)) < 2:
            raise ValueError("the target has a single class" if target == "classes" else "the target is constant")
    return dict(X=X, y=y, kind=kind, target=target if y is not None else None)


def target_of(y):
    """Text and a few whole numbers are classes, all else is a number."""
    y = np.asarray(y)
    if y.dtype.kind not in "iuf":
        return "classes"
    return "classes" if (y == np.round(y)).all() and len(np.unique(y)) <= MOST_CLASSES else "number"


def from_frame(frame, target=None):
    """Columns of text become indicators, a missing entry a level of its own; columns of numbers stay as they are.

    A missing number is the median of its column, as most methods take none; benchmarks/imputation.py compares imputers.
    A column in which most entries are numbers and some are text is a mistake in the data: ValueError. Dates are neither
    numbers nor text, and a user knows best what they are to be: ValueError too.
    """
    if target is not None and target not in frame:
        raise ValueError(f"no column {target!r}: there are {', '.join(map(repr, frame.columns[:30]))}")
    y = None if target is None else frame.pop(target)
    for name in frame.columns:
        column = frame[name]
        if (example := date_in(column)) is not None:
            raise ValueError(
                f"column {name!r} holds dates such as {example}: make it a number, such as days, or leave it out"
            )
        if pd.api.types.is_numeric_dtype(column):
            if column.isna().all():
                raise ValueError(f"column {name!r} has no value: leave it out")
            if column.isna().any():
                frame[name] = column.fillna(column.median())
        elif not isinstance(column.dtype, pd.CategoricalDtype):
            numbers = pd.to_numeric(column, errors="coerce")
            if numbers.notna().mean() > 0.5:
                text = column[numbers.isna()].iloc[0]
                raise ValueError(f"column {name!r} should hold numbers, and holds {text!r}")
        if not pd.api.types.is_numeric_dtype(column) and column.nunique() > max(MOST_CLASSES, len(column) // 20):
            raise ValueError(f"column {name!r} holds {column.nunique()} different texts: leave it out")
    text = frame.select_dtypes(exclude=["number", "bool"]).columns
    X = frame.drop(columns=text)
    if len(text):
        indicators = pd.get_dummies(frame[text], columns=text, dummy_na=True, dtype=float)
        indicators = indicators.loc[:, indicators.any()]  # no level of missing entries where none is missing
        X = pd.concat([X, indicators], axis=1)
    return dict(X=X.to_numpy(dtype=float), y=None if y is None else y.to_numpy())


def date_in(column):
    """The first entry of a column of dates or durations, as they are or as text; None if it is not one."""
    entries = column.dropna()
    if pd.api.types.is_numeric_dtype(entries) or not len(entries):
        return None
    typed = entries.map(lambda entry: isinstance(entry, date | timedelta | np.datetime64 | np.timedelta64))
    text = entries.astype(str).str.fullmatch(r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}([T ].*)?")
    return entries.iloc[0] if typed.mean() > 0.5 or text.mean() > 0.5 else None


def from_npz(path):
    """X and y of an archive; columns that is_categorical marks become indicators.

    Without a `kind`, rows that are not negative and could be squares of at least 8 x 8 are taken for pictures.
    """
    with np.load(path, allow_pickle=False) as archive:
        if "X" not in archive:
            raise ValueError(f"{path} holds no array X: there are {', '.join(archive.files)}")
        X, y = archive["X"], archive.get("y")
        categorical = archive["is_categorical"].astype(bool) if "is_categorical" in archive else None
        kind = str(archive["kind"]) if "kind" in archive else None
    if X.dtype.kind not in "biuf":
        raise ValueError(f"X of {path} holds {X.dtype}, not numbers")
    if categorical is not None and categorical.any():
        frame = pd.DataFrame(X.astype(float)).astype(dict.fromkeys(np.flatnonzero(categorical), "category"))
        X = from_frame(frame)["X"]
    if kind is None:
        side = round(X.shape[-1] ** 0.5)
        kind = "pictures" if X.ndim == 2 and side >= 8 and side**2 == X.shape[1] and np.min(X) >= 0 else "table"
    return dict(X=X, y=y, kind=kind)
