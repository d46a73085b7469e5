import warnings

from benchmark_utils.drawing import figure, pixels
from benchmark_utils.summary import ALL_METRICS, average_ranks, tidy
from benchopt import BasePlot
from scikit_posthocs import critical_difference_diagram, posthoc_nemenyi_friedman
from scipy.stats import friedmanchisquare

SHOWN = ("test_r2", "test_trustworthiness_15", "test_r_nx_area", "test_spearman", "test_knn", "test_linear")


class Plot(BasePlot):
    """Mean ranks over the data sets, and what they tell apart (Demsar 2006, section 3.2.2).

    Bars join methods that Nemenyi's test at 5 % does not tell apart; all, unless Friedman's test finds any difference.
    """

    name = "Ranks"
    type = "image"
    options = {"objective": ...}

    def plot(self, df, objective):
        runs = tidy(df).query("objective_name == @objective")
        ranked = [(name, *average_ranks(runs, name)) for name in SHOWN]
        ranked = [(name, ranks, lacking) for name, ranks, lacking in ranked if len(ranks) > 1 and ranks.shape[1] > 2]
        if not ranked:
            return []
        heights = [1.1 + 0.16 * ranks.shape[1] for _, ranks, _ in ranked]
        drawn = figure(11, sum(heights))
        grid = drawn.add_gridspec(len(ranked), 1, height_ratios=heights)
        for row, (name, ranks, lacking) in zip(grid, ranked, strict=True):
            self._draw(drawn.add_subplot(row), name, ranks, lacking)
        return [{"image": pixels(drawn)}]

    def _draw(self, axes, name, ranks, lacking):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tables of the tests end somewhere
            p = friedmanchisquare(*ranks.to_numpy().T).pvalue
            different = posthoc_nemenyi_friedman(ranks.to_numpy())
            different.index = different.columns = ranks.columns
            if not p < 0.05:
                different[:] = 1.0
            critical_difference_diagram(
                ranks.mean(),
                different,
                ax=axes,
                label_fmt_left="{label} ({rank:.1f}) ",
                label_fmt_right=" ({rank:.1f}) {label}",
                color_palette=["black"] * ranks.shape[1],
            )
        title = f"held out: {ALL_METRICS[name].label}. Mean rank over {len(ranks)} data sets, 1 is best; "
        title += f"Friedman p = {p:.2g}"
        title += f"\nnot on all sets: {', '.join(lacking)}" if lacking else ""
        axes.set_title(title, fontsize=9)

    def get_metadata(self, df, objective):
        return {"title": f"{objective}: ranks over all data sets, and critical differences", "ncols": 1}
