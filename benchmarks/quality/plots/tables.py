from benchmark_utils.summary import ALL_METRICS, METRICS, OF_THE_RUN, best, means, number, tidy
from benchopt import BasePlot

PARTS = {
    "held-out rows": [f"test_{name}" for name in METRICS],
    "training rows": [f"train_{name}" for name in METRICS],
    "robustness, stability, cost": list(OF_THE_RUN),
}


class Plot(BasePlot):
    """All figures of one data set: means, half-widths of 95 % intervals, the best in bold with all that tie with it."""

    name = "Tables"
    type = "table"
    options = {"dataset": ..., "objective": ..., "part": list(PARTS)}

    def _select(self, df, dataset, objective, part):
        runs = tidy(df).query("dataset_name == @dataset and objective_name == @objective")
        columns = [name for name in PARTS[part] if runs[name].notna().any()]
        return runs, {name: ALL_METRICS[name] for name in columns}

    def plot(self, df, dataset, objective, part):
        runs, metrics = self._select(df, dataset, objective, part)
        if runs.empty:
            return []
        mean, width = means(runs, metrics)
        bold = best(mean, width, metrics, mean.index.drop("raw features", errors="ignore"))
        reasons = runs[runs["reason"] != ""].groupby("method")["reason"].first()
        rows = []
        for method in mean.index:
            cells = []
            for name in metrics:
                cell = number(mean.at[method, name])
                if cell and width.at[method, name] > 0:
                    cell += f" ± {number(width.at[method, name])}"
                cells.append(f"**{cell}**" if bold.at[method, name] else cell)
            rows.append([method, *cells, reasons.get(method, "")])
        return rows

    def get_metadata(self, df, dataset, objective, part):
        runs, metrics = self._select(df, dataset, objective, part)
        first = runs.iloc[0] if len(runs) else dict(n_all=0, n_train=0, n_test=0, n_features=0, sampled=False)
        seeds = runs["idx_rep"].nunique()
        title = f"{dataset}, {objective}: {part}. {first['n_train']} rows of {first['n_features']} to fit, "
        title += f"{first['n_test']} held out, {seeds} repetition{'s' if seeds != 1 else ''}"
        if first["n_all"] > first["n_train"] + first["n_test"]:
            title += f", drawn from {first['n_all']} rows"
        title += ", pairs among 10,000 of them" if first["sampled"] else ""
        columns = [f"{m.label} {'↑' if m.better > 0 else '↓'} ({m.unit})" for m in metrics.values()]
        return {"title": title, "columns": ["method", *columns, "why not"]}
