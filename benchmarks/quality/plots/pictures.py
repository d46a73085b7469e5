import numpy as np
from benchmark_utils.drawing import figure, pixels
from benchmark_utils.summary import tidy
from benchopt import BasePlot


class Plot(BasePlot):
    """Held-out pictures, and what each method rebuilds of them."""

    name = "Pictures"
    type = "image"
    options = {"dataset": ..., "objective": ...}

    def plot(self, df, dataset, objective):
        runs = tidy(df).query("dataset_name == @dataset and objective_name == @objective")
        runs = runs[runs["pictures"].notna() & (runs["method"] != "raw features")].sort_values(
            "test_r2", ascending=False
        )
        if runs.empty:
            return []
        rows = [("original", runs.iloc[0]["originals"])]
        rows += [(f"{run['method']}  R² {run['test_r2']:.3f}", run["pictures"]) for _, run in runs.iterrows()]
        drawn = figure(11, 0.8 * len(rows))
        for i, (label, pictures) in enumerate(rows):
            side = round(pictures.shape[1] ** 0.5)
            axes = drawn.add_subplot(len(rows), 1, i + 1)
            axes.imshow(np.hstack(pictures.reshape(-1, side, side)), cmap="gray_r", vmin=0, vmax=1, aspect="equal")
            axes.set(xticks=[], yticks=[])
            axes.set_ylabel(label, rotation=0, ha="right", va="center")
        return [{"image": pixels(drawn)}]

    def get_metadata(self, df, dataset, objective):
        return {"title": f"{dataset}, {objective}: held-out pictures and what was rebuilt", "ncols": 1}
