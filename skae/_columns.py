"""Columns of tables -> numbers, and back: which are categories, their codes, their dtypes.

Tables are data frames of pandas or polars and two-dimensional arrays. Neither library is imported here.
"""

import numbers
import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils._indexing import _get_column_indices
from sklearn.utils._missing import is_pandas_na, is_scalar_nan

__all__ = [
    "MOST_CATEGORIES",
    "Column",
    "categorical_columns",
    "check_names",
    "completed",
    "is_missing_table",
    "library",
    "read",
    "stacked_columns",
    "table",
]

# A column with more values than that is no category that could be learned, but a name or a number of each row.
MOST_CATEGORIES = 1000


class Column(NamedTuple):
    """A column as `fit` saw it: name, dtype (None of arrays of objects), sorted categories (None for numbers)."""

    name: Any
    dtype: Any
    categories: tuple | None


def library(X) -> str | None:
    """ "pandas" or "polars" for a data frame, otherwise None."""
    name = type(X).__module__.split(".")[0]
    return name if name in ("pandas", "polars") and hasattr(X, "columns") else None


def column(X, place: int):
    """One column of a data frame, as its own type has it, or of an array."""
    if library(X) == "pandas":
        return X.iloc[:, place]
    return X.to_series(place) if library(X) == "polars" else X[:, place]


def is_missing(value) -> bool:
    return value is None or is_scalar_nan(value) or is_pandas_na(value) or (value != value) is True


def categorical_columns(X, categorical_features) -> np.ndarray | None:
    """Which columns of X are categories, bool (n_features,); None if none is."""
    if categorical_features is None:
        return None
    if isinstance(categorical_features, str):  # "auto"
        if sparse.issparse(X) or (isinstance(X, np.ndarray) and X.dtype.kind not in "OUS"):
            return None
        X = _as_table(X)
        if library(X) is None and (X.ndim != 2 or X.dtype.kind not in "OUS"):
            return None
        mask = np.array([_is_category(column(X, place), name) for place, name in enumerate(_names(X))], dtype=bool)
    else:
        if sparse.issparse(X):
            raise TypeError("Sparse data was passed, but categorical_features need dense data. Use X.toarray().")
        X = _as_table(X)
        mask = np.zeros(X.shape[1], dtype=bool)
        mask[_get_column_indices(X, list(categorical_features))] = True
    return mask if mask.any() else None


def _as_table(X):
    if library(X) is not None or isinstance(X, np.ndarray):
        return X
    array = np.asarray(X)
    return np.asarray(X, dtype=object) if array.dtype.kind in "US" else array


def _names(X) -> list:
    return list(X.columns) if library(X) else list(range(X.shape[1]))


def _is_category(values, name) -> bool:
    """Whether a column holds categories: by its dtype or, of objects, by its values."""
    dtype = str(values.dtype).lower()
    if any(date in dtype for date in ("date", "time", "duration")) or getattr(values.dtype, "kind", "O") in "mM":
        raise ValueError(
            f"Column {name!r} has the dtype {values.dtype}. Make it a number, such as days since the first, or a "
            "category, such as the month."
        )
    if getattr(values.dtype, "kind", "O") == "c":
        raise ValueError(f"Complex data not supported, which column {name!r} holds.")
    if getattr(values.dtype, "kind", "O") in "iuf" or dtype.startswith(("int", "uint", "float", "double", "decimal")):
        return False
    if dtype != "object" or hasattr(values.dtype, "categories"):
        return True
    return _kind_of_values(_objects(values), name) is not numbers.Number


def _objects(values) -> list:
    """The values of a column as objects of Python."""
    values = values.to_list() if hasattr(values, "to_list") else values.tolist()
    return [value.item() if isinstance(value, np.generic) and not is_missing(value) else value for value in values]


def _kind_of_values(values: Sequence, name) -> type:
    """str, bool or Number, which all values of a column of objects are; an error if they are several."""
    kinds: dict[type, Any] = {}
    for value in values:
        if not is_missing(value):
            kinds.setdefault(next((k for k in (str, bool, numbers.Number) if isinstance(value, k)), type(value)), value)
    for kind, value in kinds.items():
        if hasattr(value, "strftime"):
            raise ValueError(
                f"Column {name!r} holds dates such as {value}. Make it a number, such as days since the first, or a "
                "category, such as the month."
            )
        if kind not in (str, bool, numbers.Number):
            raise TypeError(
                f"Column {name!r} holds {kind.__name__!r}, but an argument must be a string or a real number, a bool "
                "or missing."
            )
    if len(kinds) > 1:
        examples = ", ".join(repr(value) for value in kinds.values())
        raise ValueError(
            f"Column {name!r} mixes types, such as {examples}. Make it all numbers, or all strings with astype(str)."
        )
    return next(iter(kinds), numbers.Number)


def check_names(X) -> None:
    """ValueError if two columns have the same name."""
    names = _names(X)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"X has more than one column with the name {twice!r}. Rename them.")


def read(X, mask: np.ndarray, columns: Sequence[Column] | None = None) -> tuple[np.ndarray, tuple[Column, ...]]:
    """Codes of categories and numbers, float64 (n_samples, n_features), NaN where missing; and the columns.

    columns: those of the fit; values that are not among their categories are taken as missing.
    """
    X = _as_table(X)
    names = _names(X)
    codes, found = np.empty(X.shape), []
    for place, (name, is_category) in enumerate(zip(names, mask, strict=True)):
        values = column(X, place)
        if is_category:
            known = None if columns is None else columns[place].categories
            codes[:, place], known = _codes(_objects(values), known, name, hasattr(values.dtype, "categories"))
        else:
            codes[:, place], known = _numbers(values, name), None
        found.append(Column(name, _dtype(values), known))
    return codes, tuple(found)


def _dtype(values):
    """That of a column of a data frame or, for one of an array of numbers, that which decoded numbers have."""
    if not isinstance(values, np.ndarray):
        return values.dtype
    return np.result_type(values.dtype, np.float32) if values.dtype.kind in "biuf" else None


def _numbers(values, name) -> np.ndarray:
    if str(values.dtype) == "object" and not hasattr(values, "to_numpy"):
        values = [np.nan if is_missing(value) else value for value in values]
    try:
        if hasattr(values, "cast"):  # polars
            return values.cast(float, strict=True).to_numpy().astype(np.float64)
        if hasattr(values, "to_numpy"):
            return values.to_numpy(dtype=np.float64, na_value=np.nan)
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Column {name!r} is not of numbers and not among categorical_features: {error}.") from error
    except Exception as error:  # polars has its own
        raise ValueError(f"Column {name!r} cannot be read as numbers: {error}") from error


def _codes(values: list, categories: tuple | None, name, declared: bool) -> tuple[np.ndarray, tuple]:
    """Codes of values, and categories, those given or, sorted, those present; declared: whether the dtype has them."""
    missing = np.fromiter((is_missing(value) for value in values), bool, len(values))
    if categories is None:
        present = {value for value, hole in zip(values, missing, strict=True) if not hole}
        if not declared:
            _kind_of_values(list(present), name)
        try:
            categories = tuple(sorted(present))
        except TypeError:  # of a dtype with categories of several types
            categories = tuple(sorted(present, key=repr))
        if len(categories) > MOST_CATEGORIES:
            raise ValueError(
                f"Column {name!r} has {len(categories)} categories, more than {MOST_CATEGORIES}. Drop it, or join "
                "those that are rare."
            )
    places = {value: float(place) for place, value in enumerate(categories)}
    known = (np.nan if hole else places.get(value, np.nan) for value, hole in zip(values, missing, strict=True))
    codes = np.fromiter(known, np.float64, len(values))
    if len(codes) > 1 and np.isnan(codes).all() and not missing.all():
        warnings.warn(
            f"Column {name!r} has no category that fit has seen, but values such as "
            f"{values[int(missing.argmin())]!r}: all are taken as missing.",
            stacklevel=2,
        )
    return codes, categories


def _values(codes: np.ndarray, column: Column) -> Sequence:
    """Numbers or categories of a column, to be given its dtype; missing where a condition was given so."""
    if column.categories is not None:
        return [None if np.isnan(code) else column.categories[int(code)] for code in codes]
    kind = re.match(r"u?int\d*", str(column.dtype).lower())
    if kind is None:
        return codes
    if (missing := np.isnan(codes)).any():
        return [
            None if hole else value for hole, value in zip(missing, _values(np.nan_to_num(codes), column), strict=True)
        ]
    limits = np.iinfo(kind.group())  # as floats, the limits of 64 bits are rounded outwards
    least, most = np.nextafter(float(limits.min), 0), np.nextafter(float(limits.max), 0)
    return np.clip(np.rint(codes), np.ceil(least), np.floor(most)).astype(limits.dtype)


def table(codes: np.ndarray, columns: Sequence[Column], like: str | None):
    """A table of the library and with the dtypes of a fit, or an array."""
    if like == "pandas":
        import pandas

        series = {c.name: pandas.Series(_values(codes[:, i], c)) for i, c in enumerate(columns)}
        # NumPy's integers and booleans have nothing for a missing cell
        keeps = [
            not (isinstance(c.dtype, np.dtype) and c.dtype.kind in "iub" and series[c.name].isna().any())
            for c in columns
        ]
        dtypes = {c.name: c.dtype for c, keeps_dtype in zip(columns, keeps, strict=True) if keeps_dtype}
        return pandas.DataFrame(series).astype(dtypes)
    if like == "polars":
        import polars

        series = [polars.Series(c.name, _values(codes[:, i], c)).cast(c.dtype) for i, c in enumerate(columns)]
        return polars.DataFrame(series)
    out = np.empty(codes.shape, dtype=columns[0].dtype or object)
    for place, c in enumerate(columns):
        out[:, place] = _values(codes[:, place], c)
    return out


def completed(X, missing: np.ndarray, codes: np.ndarray, columns: Sequence[Column] | None):
    """X with its missing cells as codes have them, and all other cells as they are; a copy of the same type.

    columns: those of the fit, None if all are numbers.
    """
    X = X.copy() if library(X) == "pandas" else _as_table(X)
    out = X if library(X) else np.array(X)
    names = _names(X)
    for place in np.flatnonzero(missing.any(axis=0)).tolist():
        name, values, holes = names[place], column(X, place), missing[:, place]
        known = None if columns is None else columns[place].categories
        filled = _values(codes[holes, place], Column(name, _dtype(values), known))
        if library(X) == "pandas":
            values = values.copy()
            values[holes] = type(values)(list(filled), dtype=values.dtype).array
            out.isetitem(place, values)
        elif library(X) == "polars":
            whole = np.array(values.to_list(), dtype=object)
            whole[holes] = filled
            out = out.with_columns(type(values)(name, whole.tolist(), dtype=values.dtype))
        else:
            out[holes, place] = filled
    return out


def is_missing_table(X) -> np.ndarray:
    """Which cells of a table are missing, bool (n_samples, n_features)."""
    X = _as_table(X)
    if library(X) is None and X.dtype.kind in "biuf":
        return np.isnan(X) if X.dtype.kind == "f" else np.zeros(X.shape, dtype=bool)
    columns = [[is_missing(value) for value in _objects(column(X, place))] for place in range(X.shape[1])]
    return np.array(columns, dtype=bool).reshape(X.shape[::-1]).T


def stacked_columns(filled, empty: np.ndarray, names: list):
    """A table with columns of zeros in the places where a column was empty."""
    rows = filled.shape[0]
    if library(filled) is None:
        out = np.zeros((rows, len(empty)), dtype=filled.dtype)
        out[:, ~empty] = filled
        return out
    if library(filled) == "pandas":
        for place in np.flatnonzero(empty):
            filled.insert(int(place), names[place], 0.0)
        return filled
    for place in np.flatnonzero(empty):
        filled = filled.insert_column(int(place), type(filled.to_series(0))(names[place], np.zeros(rows)))
    return filled
