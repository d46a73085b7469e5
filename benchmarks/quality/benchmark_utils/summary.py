"""From the rows that benchopt collected to tables: what the figures and the report share."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats


class Metric(NamedTuple):
    """How a figure is called and read. `better`: +1 where more is better, -1 where less is."""

    label: str
    unit: str
    better: int


METRICS = {
    "r2": Metric("R²", "share of variance", 1),
    "mse": Metric("MSE", "squared units of X", -1),
    "log_likelihood": Metric("log-likelihood", "nats a row", 1),
    "trustworthiness_5": Metric("trust 5", "0 to 1", 1),
    "trustworthiness_15": Metric("trust 15", "0 to 1", 1),
    "trustworthiness_50": Metric("trust 50", "0 to 1", 1),
    "continuity_5": Metric("contin. 5", "0 to 1", 1),
    "continuity_15": Metric("contin. 15", "0 to 1", 1),
    "continuity_50": Metric("contin. 50", "0 to 1", 1),
    "r_nx_5": Metric("R_NX 5", "0 random, 1 kept", 1),
    "r_nx_15": Metric("R_NX 15", "0 random, 1 kept", 1),
    "r_nx_50": Metric("R_NX 50", "0 random, 1 kept", 1),
    "r_nx_area": Metric("R_NX area", "0 random, 1 kept", 1),
    "spearman": Metric("Spearman", "-1 to 1", 1),
    "triplets": Metric("triplets", "share in order", 1),
    "stress": Metric("stress", "0 is none", -1),
    "knn": Metric("5-NN", "accuracy or R²", 1),
    "linear": Metric("linear", "accuracy or R²", 1),
    "silhouette": Metric("silhouette", "-1 to 1", 1),
    "nmi": Metric("NMI", "0 to 1", 1),
}
OF_THE_RUN = {
    "noisy_shift": Metric("noise: shift", "share of code variance", -1),
    "noisy_r2": Metric("noise: R²", "share of variance", 1),
    "masked_shift": Metric("masked: shift", "share of code variance", -1),
    "masked_r2": Metric("masked: R²", "share of variance", 1),
    "agreement": Metric("two seeds", "1 - Procrustes", 1),
    "fit_seconds": Metric("fit", "s", -1),
    "rows_per_second": Metric("fit rows", "1/s", 1),
    "transform_seconds": Metric("transform", "s per 1,000 rows", -1),
    "peak_memory": Metric("memory", "MiB", -1),
}
ALL_METRICS = {f"{group}_{name}": m for group in ("test", "train") for name, m in METRICS.items()} | OF_THE_RUN


def tidy(df):
    """One row a run with the columns data, method, k and those of the objective; a metric nothing had is NaN.

    benchopt hands the same frame to every figure: the last one is remembered.
    """
    if _last.get("frame") is not df:
        _last.update(frame=df, tidied=_tidied(df))
    return _last["tidied"]


_last = {}


def _tidied(df):
    df = df.rename(columns=lambda name: name.removeprefix("objective_") if name != "objective_name" else name)
    columns = {name: df.get(name, np.nan) for name in [*ALL_METRICS, "map", "map_labels", "pictures"]}
    df = df.assign(**columns)
    df["data"] = df["dataset_name"]
    df["k"] = df["p_obj_n_components"].astype(int)
    return df.assign(method=_method_names(df))


def _method_names(df):
    """Names without the parameters that are None or have one value in all runs; LDA and others say that they saw y."""
    parameters = [c for c in df if c.startswith("p_solver_") and c != "p_solver_estimator_name"]
    varies = {
        solver: [c for c in parameters if runs[c].map(str).nunique() > 1]
        for solver, runs in df.groupby(df["solver_name"].str.split("[").str[0])
    }

    def name(run):
        solver = run["solver_name"].split("[")[0]
        shown = run["p_solver_estimator_name"] if solver == "skae" else solver
        given = [(c.removeprefix("p_solver_"), _value(run[c])) for c in varies[solver]]
        chosen = ", ".join(f"{parameter}={value}" for parameter, value in given if value is not None)
        return shown + (f" ({chosen})" if chosen else "") + (" (uses y)" if run["uses_y"] else "")

    return df.apply(name, axis=1)


def _value(parameter):
    """A column with None among numbers comes back from the file as one of floats."""
    if parameter is None or parameter != parameter:
        return None
    return int(parameter) if isinstance(parameter, float) and parameter.is_integer() else parameter


def interval(values):
    """Mean, and half the width of its 95 % interval by Student's t; the width of a single value is NaN."""
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return values.mean() if len(values) else np.nan, np.nan
    return values.mean(), stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))


def means(runs, metrics):
    """Two frames, methods x metrics: means over repetitions and half-widths."""
    pairs = runs.groupby("method")[list(metrics)].agg(interval)
    return tuple(pairs.map(lambda pair, i=i: pair[i]).astype(float) for i in (0, 1))


def best(mean, width, metrics, candidates):
    """Frame of bool: among the candidates, the best of each column and all whose interval meets the best one's."""
    found = pd.DataFrame(False, index=mean.index, columns=mean.columns)
    for name, metric in metrics.items():
        value = mean.loc[candidates, name] * metric.better
        if value.notna().any():
            slack = width.loc[candidates, name].fillna(0)
            top = value.idxmax()
            found.loc[candidates, name] = value + slack >= value[top] - slack[top]
    return found


def average_ranks(runs, name):
    """Ranks on each data set (1 is best) of the methods that have a value on all, and those that lack some.

    The raw features are no reduction and take no part.
    """
    runs = runs[runs["method"] != "raw features"]
    table = runs.groupby(["data", "method"])[name].mean().unstack()
    table = table.dropna(how="all").dropna(axis=1, how="all")
    whole = table.dropna(axis=1)
    return (-ALL_METRICS[name].better * whole).rank(axis=1), sorted(set(table) - set(whole))


def number(value):
    """Three decimals for shares, three digits for the rest; empty for NaN."""
    if np.isnan(value):
        return ""
    if 1e-3 <= abs(value) < 10 or value == 0:
        return f"{value:.3f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
