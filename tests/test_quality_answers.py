"""benchmarks/quality: from what runs measured to answers, ties, words, colours and maps."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import t as student_t


def test_intervals(utils):
    mean, width = utils["summary"].interval([1.0, 2.0, 3.0, np.nan])
    assert (mean, width) == pytest.approx((2, 4.302652729911275 / np.sqrt(3)))
    assert np.isnan(utils["summary"].interval([1.0])[1])


def test_best_takes_ties_by_the_interval(utils):
    summary = utils["summary"]
    mean = pd.DataFrame({"test_r2": [0.9, 0.88, 0.5, np.nan], "fit_seconds": [1.0, 2.0, 3.0, 0.1]}, index=list("abcd"))
    width = pd.DataFrame(
        {"test_r2": [0.01, 0.01, 0.1, np.nan], "fit_seconds": [0.1, 0.1, 0.1, 0.1]}, index=list("abcd")
    )
    found = summary.best(mean, width, {n: summary.ALL_METRICS[n] for n in mean}, mean.index.drop("d"))
    assert found["test_r2"].tolist() == [True, True, False, False]
    assert found["fit_seconds"].tolist() == [True, False, False, False]  # less is better, and d is no candidate


def runs_of(values, metric="test_r2", **columns):
    """Runs of one metric: values[method] has an entry a data set, or a split of one if these are lists of a list."""
    rows = [
        {"method": m, "data": f"set {i}", "idx_rep": r, "k": 2, "uses_y": False, "fit_seconds": 1.0, metric: v}
        | columns
        for m, of_sets in values.items()
        for i, splits in enumerate(of_sets)
        for r, v in enumerate(splits if isinstance(splits, list) else [splits])
    ]
    return pd.DataFrame(rows)


def test_ranks_are_of_methods_that_ran_everywhere(utils):
    summary = utils["summary"]
    runs = runs_of({"A": [0.3] * 3, "B": [0.2] * 3, "C": [0.9]})
    ranks, lacking = summary.average_ranks(summary.by_data(runs, "test_r2"), "test_r2")
    assert (len(ranks), lacking) == (3, ["C"])
    assert ranks.mean().to_dict() == {"A": 1, "B": 2}


@pytest.fixture
def purposes(utils):
    return {purpose.name: purpose for purpose in utils["summary"].PURPOSES}


def test_an_answer_is_a_clear_winner_or_a_tie(utils, purposes):
    of_pca = np.linspace(0.2, 0.6, 8)
    runs = runs_of(
        {
            "better": of_pca + 0.1,
            "level": of_pca + 0.1 - 0.001 * np.array([1, 1, 1, 1, 1, -1, -1, -1]),
            "PCA": of_pca,
            "raw features": np.ones(8),
            "rare": [0.99],
        }
    )
    found = utils["answers"].answer(runs, purposes["rebuild"], 2)
    assert (found.method, found.other, found.wins, found.n, found.units) == ("better", "PCA", 8, 8, "data sets")
    assert found.gain == pytest.approx(0.1)
    assert found.p == pytest.approx(2 / 2**8)  # as good as it gets: Wilcoxon's exact p for the same sign on all eight
    assert found.clear
    assert found.ties == ["level"]
    runs.loc[runs["method"] == "better", "test_r2"] = of_pca + [0.1, -0.1] * 4
    runs = runs[runs["method"] != "level"]
    found = utils["answers"].answer(runs, purposes["rebuild"], 2)
    assert not found.clear
    assert len(found.ties) == 1
    few = utils["answers"].answer(runs[runs["data"].isin(["set 0", "set 1"])], purposes["rebuild"], 2)
    assert np.isnan(few.p)
    assert not few.clear


def test_the_labels_and_the_raw_features_win_no_answer(utils, purposes):
    runs = runs_of({"A": [0.5] * 6, "PCA": [0.4] * 6, "raw features": [1.0] * 6}, "test_linear")
    sees = runs_of({"LDA": [0.9] * 6}, "test_linear", uses_y=True)
    found = utils["answers"].answer(pd.concat([runs, sees]), purposes["features"], 2)
    assert (found.method, found.raw) == ("A", 1.0)


def test_times_are_compared_by_their_ratio(utils, purposes):
    runs = runs_of({"PCA": [0.1, 1.0] * 3, "slow": [0.3, 3.0] * 3}, "fit_seconds")
    found = utils["answers"].answer(runs, purposes["speed"], 2)
    assert (found.method, found.other) == ("PCA", "slow")
    assert found.gain == pytest.approx(3)


def test_splits_of_one_data_set_are_compared_by_the_corrected_t_test(utils, purposes):
    """Nadeau and Bengio 2003: of J splits the variance counts 1 / J + n_test / n_train, not 1 / J."""
    gains = np.array([0.1, 0.12, 0.08, 0.11, 0.09])
    runs = runs_of({"A": [list(0.5 + gains)], "PCA": [[0.5] * 5]})
    found = utils["answers"].answer(runs, purposes["rebuild"], 2)
    t = gains.mean() / np.sqrt((1 / 5 + 1 / 3) * gains.var(ddof=1))
    assert (found.units, found.n, found.wins) == ("splits", 5, 5)
    assert found.p == pytest.approx(2 * student_t.sf(t, 4))
    alone = utils["answers"].answer(runs[runs["idx_rep"] == 0], purposes["rebuild"], 2)
    assert np.isnan(alone.p)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("needs a target of classes", "needs class labels"),
        ("ran past its limit of 60 s", "out of time: not done after 60 s"),
        ("needed more than its 8 GB of memory", "out of memory: needed more than 8 GB"),
        (
            "ValueError: n_components cannot be larger than min(n_features, n_classes - 1).",
            "makes fewer components than classes",
        ),
        ("ValueError: Negative values in data passed to NMF (input X).", "takes no negative values"),
        ("ValueError: t-SNE makes maps: for more than 3 components its", "t-SNE makes maps: not for more than 3"),
        ("its codes could not be evaluated: X", "failed: its codes could not be evaluated: X"),
        ("RuntimeError: no such thing", "failed: no such thing"),
    ],
)
def test_reasons_are_words(utils, reason, words):
    assert words in utils["answers"].in_words(reason)


def as_seen(colours, matrix):
    """OKLab coordinates (Ottosson 2020) of sRGB colours after a 3 x 3 map of linear RGB."""
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.63]]
    to_lab = [[0.2105, 0.7936, -0.0041], [1.978, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
    seen = np.cbrt(np.clip(linear @ np.transpose(matrix), 0, 1) @ np.transpose(cones)) @ np.transpose(to_lab)
    return seen, linear @ [0.2126, 0.7152, 0.0722]


SIGHTS = {  # Machado, Oliveira and Fernandes 2009, severity 1
    "normal": np.eye(3),
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.052]],
    "deuteranopia": [[0.3673, 0.8606, -0.228], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}


@pytest.mark.parametrize(("palette", "page"), [("LIGHT", "#ffffff"), ("DARK", "#15181d")])
def test_ten_colours_are_told_apart(utils, palette, page):
    colours = getattr(utils["drawing"], palette)
    assert len(colours) == 10
    for name, matrix in SIGHTS.items():
        distances = pdist(as_seen(colours, matrix)[0])
        assert distances.min() > (0.12 if name == "normal" else 0.1)  # matplotlib's tab10 has 0.02 with deuteranopia
    luminance, paper = as_seen(colours, np.eye(3))[1], as_seen([page], np.eye(3))[1]
    contrast = (np.maximum(luminance, paper) + 0.05) / (np.minimum(luminance, paper) + 0.05)
    assert contrast.min() >= 2.95


def test_maps_are_drawn_on_one_scale(utils):
    codes = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0]])
    drawn = utils["drawing"].scatter(codes, np.array([0.0, 1, 1]), "classes", "a <b>", 10)
    assert "<title>a &lt;b&gt;</title>" in drawn
    points = [tuple(map(int, p)) for p in re.findall(r"M(\d+) (\d+)h0", drawn)]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert (x1 - x0, y1 - y0) == (184, 0)
    assert (x2 - x1, y1 - y2) == (0, 92)  # upwards, half as far
    assert len(re.findall("h0", utils["drawing"].scatter(np.tile(codes, (9, 1)), np.zeros(27), "none", "", 10))) == 10


def test_twenty_classes_differ_in_colour_or_shape(utils):
    assert len({utils["drawing"].look(label) for label in range(20)}) == 20
