from benchmark_utils.drawing import panels, pixels, styles
from benchmark_utils.summary import means, tidy
from benchopt import BasePlot

SHOWN = ("test_r2", "test_r_nx_area", "test_linear")


class Plot(BasePlot):
    """Quality against the number of components."""

    name = "Quality and components"
    type = "image"
    options = {"dataset": ...}

    def plot(self, df, dataset):
        look = styles(tidy(df)["method"])
        runs = tidy(df).query("dataset_name == @dataset")
        runs = runs[(runs["reason"] == "") & (runs["method"] != "raw features")]
        shown = [name for name in SHOWN if runs[name].notna().any()]
        if runs["k"].nunique() < 2 or not shown:
            return []
        tables = {k: means(of_k, shown) for k, of_k in runs.groupby("k")}
        for name, axes in panels(runs, shown, look, "number of components"):
            for method in runs["method"].unique():
                ks = [k for k, (mean, _) in tables.items() if method in mean.index]
                values, widths = ([tables[k][i].at[method, name] for k in ks] for i in (0, 1))
                axes.errorbar(ks, values, widths, capsize=2, **look[method])
            axes.set_xticks(list(tables), labels=list(tables))
            axes.minorticks_off()
        return [{"image": pixels(axes.figure)}]

    def get_metadata(self, df, dataset):
        return {"title": f"{dataset}: quality and the number of components", "ncols": 1}
