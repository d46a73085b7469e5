"""From the rows that benchopt collected to tables: means, intervals, ranks, and what is measured for which purpose."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

# Of skae's transformers, those that the benchmark cannot be fair to, and why.
LEFT_OUT = {
    "ConditionalVAE": "models some columns given others, which no data set here sets apart. Given none, it is VAE, "
    "which takes part",
    "TDVAE": "takes rows that are windows of a series, which no data set here has: benchmarks/temporal.py has",
}


class Metric(NamedTuple):
    """How a figure is called and read. `better`: +1 where more is better, -1 where less is."""

    label: str
    unit: str
    better: int

    @property
    def heading(self):
        return f"{self.label} {'↑' if self.better > 0 else '↓'}"


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


class Purpose(NamedTuple):
    """What a code is wanted for: its first metric decides, the others are told beside it."""

    name: str
    title: str
    measure: str  # its first metric, in words
    metrics: tuple

    @property
    def metric(self):
        return self.metrics[0]

    @property
    def is_ratio(self):
        """Times are compared by their ratio, all else by the difference."""
        return self.metric == "fit_seconds"


def _held_out(*names):
    return tuple(f"test_{name}" for name in names)


PURPOSES = (
    Purpose(
        "rebuild",
        "Rebuild rows",
        "share of the variance rebuilt (R²)",
        (*_held_out("r2", "mse", "log_likelihood"), "noisy_r2", "masked_r2"),
    ),
    Purpose(
        "map",
        "Draw a map",
        "neighbourhoods of all sizes kept, 0 random, 1 all (R_NX area)",
        (*_held_out("r_nx_area", "spearman", "triplets", "stress"), "agreement", "noisy_shift", "masked_shift"),
    ),
    Purpose(
        "neighbours",
        "Keep neighbours",
        "of the 15 nearest, 0 random, 1 all (R_NX 15)",
        _held_out(*(f"{name}_{k}" for k in (15, 5, 50) for name in ("r_nx", "trustworthiness", "continuity"))),
    ),
    Purpose(
        "features",
        "Features for a model",
        "a linear model on the codes: accuracy, or R² of a number",
        _held_out("linear", "knn", "silhouette", "nmi"),
    ),
    Purpose("speed", "Speed", "seconds to fit, one thread", ("fit_seconds", "transform_seconds", "peak_memory")),
)


def tidy(df):
    """One row a run with the columns data, method, k and those of the objective; a metric nothing had is NaN."""
    df = df.rename(columns=lambda name: name.removeprefix("objective_") if name != "objective_name" else name)
    columns = {name: df.get(name, np.nan) for name in [*ALL_METRICS, "map", "map_labels", "pictures", "originals"]}
    df = df.assign(**columns)
    df["data"] = [_data_name(name) for name in df["dataset_name"]]
    df["k"] = df["p_obj_n_components"].astype(int)
    return df.assign(method=_method_names(df))


def _data_name(name):
    """What stands in the brackets: digits of bundled[digits]."""
    return name.split("[", 1)[-1].removesuffix("]")


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


def by_data(runs, name, unit="data"):
    """Frame, data sets (or other units) x methods, of the means of a metric, without those that nothing has."""
    table = runs.groupby([unit, "method"], sort=False)[name].mean().unstack()
    return table.dropna(how="all").dropna(axis=1, how="all")


def average_ranks(table, name):
    """Ranks on each data set (1 is best) of the methods that have a value on all, and those that lack some."""
    whole = table.dropna(axis=1)
    return (-ALL_METRICS[name].better * whole).rank(axis=1), sorted(set(table) - set(whole))


def number(value):
    """Three decimals for shares, three digits for the rest; empty for NaN."""
    if np.isnan(value):
        return ""
    if 1e-3 <= abs(value) < 10 or value == 0:
        return f"{value:.3f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
