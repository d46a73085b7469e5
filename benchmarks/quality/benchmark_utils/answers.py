"""Which method to take for a purpose and by how much, what ties with it, and what a method cannot do, in words."""

import re
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from benchmark_utils.summary import ALL_METRICS, PURPOSES, Purpose, average_ranks, by_data

LEVEL = 0.05
LEAST_SETS = 6  # of fewer, not even the same sign on all is below 5 % in Wilcoxon's test
# What a reason of benchmark_utils/guard.py, method.py or a library says to a reader; {} is its first group.
WORDS = {
    r"needs a target of classes": "needs class labels",
    r"ran past its limit of (\S+) s": "out of time: not done after {} s",
    r"needed more than its (\S+) GB of memory": "out of memory: needed more than {} GB",
    r"its process ended with code -9": "its process was killed, most often for want of memory",
    r"its process ended with code (-?\d+)": "its process crashed (code {})",
    r"n_components cannot be larger than min\(n_features, n_classes - 1\)": "makes fewer components than classes",
    r"[Nn]egative values in data": "takes no negative values",
    r"not finite": "gave codes that are not finite",
    r"([\w-]+ makes maps): ": "{}: not for more than 3 components",
    r"(?:[A-Z]\w*: )?(.*)": "failed: {}",  # without the name of the exception
}


class Answer(NamedTuple):
    """The method to take for a purpose, and how it compares with `other`: PCA, or the second if it is PCA itself."""

    purpose: Purpose
    k: int
    method: str
    value: float  # median over data sets (or splits), as are seconds and raw
    other: str
    gain: float  # median of the differences, of the ratios for times; above 0 or 1 is better
    least: float
    most: float
    wins: int
    n: int
    units: str  # of which there are n: "data sets", or "splits" of the only one
    p: float  # NaN: cannot be told
    ties: list  # all methods that cannot be told from it, the best first
    seconds: float  # of its fit
    raw: float  # of the raw features, for features

    @property
    def clear(self):
        return self.p < LEVEL


def compare(first, other, name, is_ratio=False, unit="data", held_out_share=1 / 3):
    """Gain (median, least, most), wins and p of one method over another.

    Two series, an entry a data set or, of one data set, a split.
    Over data sets: Wilcoxon's signed-rank test (Demsar 2006, section 3.1.3), NaN of fewer than six. Over splits, which
    share rows: the corrected resampled t-test (Nadeau and Bengio 2003, section 4.2), NaN of one.
    """
    values = [np.log(series.to_numpy(float)) if is_ratio else series.to_numpy(float) for series in (first, other)]
    gains = (values[0] - values[1]) * ALL_METRICS[name].better
    n, p = len(gains), np.nan
    if not gains.any():
        p = 1.0
    elif unit == "data" and n >= LEAST_SETS:
        p = float(stats.wilcoxon(gains, zero_method="zsplit").pvalue)
    elif unit == "split" and n > 1:
        error = np.sqrt((1 / n + held_out_share) * gains.var(ddof=1))
        p = float(2 * stats.t.sf(abs(gains.mean()) / error, n - 1)) if error > 0 else 0.0
    gain = np.array([np.median(gains), gains.min(), gains.max()])
    return tuple(np.exp(gain) if is_ratio else gain), int((gains > 0).sum()), p


def answer(runs, purpose, k):
    """The Answer for the runs of k components; None if fewer than two methods have a value on all data sets.

    What sees the target takes no part, nor do the raw features, which are no reduction.
    """
    runs = runs[runs["k"] == k]
    unit, units = ("data", "data sets") if runs["data"].nunique() > 1 else ("split", "splits")
    runs = runs.assign(split=runs["idx_rep"])
    name = purpose.metric
    table = by_data(runs[~runs["uses_y"].astype(bool) & (runs["method"] != "raw features")], name, unit)
    ranks, _ = average_ranks(table, name)
    if ranks.shape[1] < 2:
        return None
    order = ranks.mean().sort_values(kind="stable").index
    first = order[0]
    other = "PCA" if "PCA" in order and first != "PCA" else order[1]
    pairs = {m: compare(table[first], table[m], name, purpose.is_ratio, unit) for m in order[1:]}
    gain, wins, p = pairs[other]
    raw = by_data(runs[runs["method"] == "raw features"], name, unit) if purpose.name == "features" else table[[]]
    return Answer(
        *(purpose, k, first, table[first].median(), other, *gain, wins, len(table), units, p),
        ties=[m for m, (_, _, p_m) in pairs.items() if not p_m < LEVEL],
        seconds=by_data(runs, "fit_seconds", unit)[first].median(),
        raw=float(raw.median().median()) if raw.size else np.nan,
    )


def answers(runs):
    """One for each purpose and number of components; maps are of two."""
    asked = [(purpose, k) for purpose in PURPOSES for k in sorted(runs["k"].unique())]
    found = [answer(runs, purpose, k) for purpose, k in asked if purpose.name != "map" or k == 2]
    return [a for a in found if a is not None]


def in_words(reason):
    """A reason as the runs recorded it, in words."""
    pattern, words = next((p, w) for p, w in WORDS.items() if re.search(p, reason))
    return words.format(*re.search(pattern, reason).groups())


def failures(runs):
    """Frame of method, reason in words, data sets with their number of components: a row a method and reason."""
    failed = runs[runs["reason"] != ""].drop_duplicates(["method", "data", "k", "reason"])
    several = runs["k"].nunique() > 1
    where = failed["data"] + (" (" + failed["k"].astype(str) + ")" if several else "")
    failed = pd.DataFrame({"method": failed["method"], "reason": failed["reason"].map(in_words), "where": where})
    return failed.groupby(["method", "reason"], sort=True)["where"].agg(", ".join).reset_index()


def abilities(runs):
    """What methods cannot do at all: reason -> methods. Told from what their runs that succeeded left empty."""
    runs = runs[(runs["reason"] == "") & (runs["method"] != "raw features")]
    has = runs.groupby("method")[["test_r_nx_area", "test_r2", "train_r2"]].agg(lambda values: values.notna().any())
    return {
        "cannot map new rows": sorted(has.index[~has["test_r_nx_area"]]),
        "cannot rebuild rows": sorted(has.index[~has["test_r2"] & ~has["train_r2"]]),
        "see the labels, and are in no answer above": sorted(runs.loc[runs["uses_y"].astype(bool), "method"].unique()),
    }
