from benchmark_utils.drawing import panels, pixels, styles
from benchmark_utils.summary import means, tidy
from benchopt import BasePlot

SHOWN = ("test_r2", "test_r_nx_area", "test_knn")


class Plot(BasePlot):
    """Quality against the time of the fit; a line joins the methods that none beats in both (the Pareto front)."""

    name = "Quality and time"
    type = "image"
    options = {"dataset": ..., "objective": ...}

    def plot(self, df, dataset, objective):
        look = styles(tidy(df)["method"])
        runs = tidy(df).query("dataset_name == @dataset and objective_name == @objective")
        runs = runs[(runs["method"] != "raw features") & (runs["reason"] == "")]
        shown = [name for name in SHOWN if runs[name].notna().any()]
        if not shown:
            return []
        mean, width = means(runs, [*shown, "fit_seconds"])
        mean = mean.sort_values("fit_seconds")
        for name, axes in panels(runs, shown, look, "fit (s, one thread)"):
            values = mean[name].dropna()
            front = values[values >= values.cummax()]
            axes.plot(mean.loc[front.index, "fit_seconds"], front, color="0.7", zorder=0)
            for method, value in values.items():
                spread = width.at[method, name]
                axes.errorbar(mean.at[method, "fit_seconds"], value, spread, capsize=2, **look[method])
        return [{"image": pixels(axes.figure)}]

    def get_metadata(self, df, dataset, objective):
        title = f"{dataset}, {objective}: quality and time; grey: the Pareto front"
        return {"title": title, "ncols": 1}
