"""Windows of a series, and which of them share steps."""

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.utils import check_array

from ._rows import at_least_one

__all__ = ["n_overlapping", "windows"]


def windows(series, n_steps, step=1):
    """Cut windows from a series.

    Parameters
    ----------
    series : array-like of shape (n_times,) or (n_times, n_channels)
        Numbers in the order of time, finite or NaN where one is missing.
    n_steps : int
        Steps of a window.
    step : int, default=1
        Steps from the start of a window to the start of the next. Windows overlap if it is less than `n_steps`.

    Returns
    -------
    X : ndarray of shape (n_windows, n_steps * n_channels), float32 for a float32 series and float64 otherwise
        Windows in the order of time, as rows: all channels of the first step, then those of the second, and so on. What
        does not fill a window at the end is left out.

    Raises
    ------
    ValueError
        If the series is not valid or shorter than a window, or if n_steps or step is not a positive integer.

    Examples
    --------
    >>> from skae import windows
    >>> windows([1, 2, 3, 4, 5], n_steps=3)
    array([[1., 2., 3.],
           [2., 3., 4.],
           [3., 4., 5.]])
    >>> windows([[1, 10], [2, 20], [3, 30]], n_steps=2)
    array([[ 1., 10.,  2., 20.],
           [ 2., 20.,  3., 30.]])
    """
    n_steps, step = at_least_one(n_steps=n_steps), at_least_one(step=step)
    series = check_array(
        series, dtype=[np.float64, np.float32], ensure_2d=False, ensure_all_finite="allow-nan", input_name="series"
    )
    if series.ndim == 1:
        series = series[:, None]
    if len(series) < n_steps:
        raise ValueError(f"The series has {len(series)} steps, fewer than a window of n_steps={n_steps}.")
    cut = sliding_window_view(series, n_steps, axis=0)[::step]  # (n_windows, n_channels, n_steps), a view
    return np.ascontiguousarray(cut.swapaxes(1, 2)).reshape(len(cut), -1)


def n_overlapping(X, n_channels):
    """How many of the rows that follow a row share steps with it: 0 if rows are not windows cut one after another.

    They are, if the end of most rows is the beginning of the next.
    """
    n_steps = X.shape[1] // n_channels
    for step in range(1, n_steps if len(X) > 1 else 1):
        shared = (n_steps - step) * n_channels
        ends, begins = X[:-1, -shared:], X[1:, :shared]
        # most shifts are ruled out by the first column
        if _alike(ends[:, :1], begins[:, :1]) > 0.5 and _alike(ends, begins) > 0.5 + _alike(
            ends,
            np.roll(begins, len(begins) // 2, axis=0),  # constant columns are equal in any order
        ):
            return math.ceil(n_steps / step) - 1
    return 0


def _alike(X, Y):
    """Share of the rows that are equal, NaN to NaN."""
    return ((X == Y) | (np.isnan(X) & np.isnan(Y))).all(axis=1).mean()
