import numpy as np
from benchmark_utils.drawing import class_colours, figure, pixels
from benchmark_utils.summary import tidy
from benchopt import BasePlot

ACROSS = 5


class Plot(BasePlot):
    """Maps of two components side by side: held-out rows, or those of the fit where a method places no others."""

    name = "Maps"
    type = "image"
    options = {"dataset": ...}

    def plot(self, df, dataset):
        runs = tidy(df).query("dataset_name == @dataset")
        runs = runs[runs["map"].notna() & (runs["idx_rep"] == 0)].sort_values("method")
        if runs.empty:
            return []
        target = runs["target"].iloc[0]
        labels = np.concatenate(runs["map_labels"].tolist()) if target != "none" else np.zeros(1)
        down = -(-len(runs) // ACROSS)
        drawn = figure(2.7 * ACROSS, 2.75 * down + 0.5)
        for i, (_, run) in enumerate(runs.iterrows()):
            axes = drawn.add_subplot(down, ACROSS, i + 1, title=run["method"])
            points = self._scatter(axes, run["map"], run["map_labels"], target, labels)
            axes.set(xticks=[], yticks=[])
            rows = "" if run["map_group"] == "test" else ", rows of the fit"
            axes.set_xlabel(f"component 1 (own unit{rows})", fontsize=8)
            axes.set_ylabel("component 2 (own unit)", fontsize=8)
        if target == "number":
            drawn.colorbar(points, ax=drawn.axes, label="target (its unit)", fraction=0.015)
        elif target == "classes" and len(np.unique(labels)) <= 7:
            drawn.legend(*axes.get_legend_handles_labels(), loc="outside right upper", title="class", markerscale=3)
        return [{"image": pixels(drawn)}]

    def _scatter(self, axes, codes, labels, target, all_labels):
        if target == "none":
            return axes.scatter(*codes.T, s=6, color=class_colours(1)[0], linewidths=0)
        if target == "number":
            low, high = all_labels.min(), all_labels.max()
            return axes.scatter(*codes.T, s=6, c=labels, cmap="cividis", vmin=low, vmax=high, linewidths=0)
        classes = np.unique(all_labels)
        for label, colour in zip(classes, class_colours(len(classes)), strict=True):
            at = codes[labels == label]
            axes.scatter(*at.T, s=6, color=colour, linewidths=0, label=f"{label:.0f}")
            if len(classes) > 7 and len(at):  # colours alone would not tell them apart: their numbers in the middle
                box = dict(boxstyle="circle,pad=0.15", fc="white", ec="none", alpha=0.7)
                middle = np.median(at, axis=0)
                axes.annotate(f"{label:.0f}", middle, ha="center", va="center", fontsize=8, weight="bold", bbox=box)

    def get_metadata(self, df, dataset):
        return {"title": f"{dataset}: maps of two components. Held-out rows of the first repetition", "ncols": 1}
