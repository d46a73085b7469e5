"""benchmarks/quality: metrics against oracles, data sets against bad input."""

import gzip
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.metrics import mean_squared_error, r2_score, silhouette_score
from sklearn.model_selection import cross_val_score

QUALITY = Path(__file__).parents[1] / "benchmarks" / "quality"


@pytest.fixture(scope="module")
def metrics(utils):
    return utils["metrics"]


@pytest.fixture
def pair():
    """Rows and a noisy map of them: no ties."""
    rng = np.random.RandomState(0)
    X = rng.standard_normal((80, 6))
    return X, X[:, :2] + 0.5 * rng.standard_normal((80, 2))


# Metrics


def all_ranks(metrics, X, Z):
    return metrics.neighbour_ranks(X), metrics.neighbour_ranks(Z)


def test_reconstruction(metrics, pair):
    X, noise = pair[0], np.random.RandomState(1).standard_normal(pair[0].shape)
    assert metrics.r2(X, X + noise) == r2_score(X, X + noise, multioutput="variance_weighted")
    assert abs(metrics.mse(X, X + noise) - mean_squared_error(X, X + noise)) < 1e-15


@pytest.mark.parametrize("k", [1, 5, 15, 39])
def test_trustworthiness_and_continuity_equal_scikit_learns(metrics, pair, k):
    X, Z = pair
    ranks = all_ranks(metrics, X, Z)
    assert abs(metrics.trustworthiness(*ranks, k) - trustworthiness(X, Z, n_neighbors=k)) < 1e-12
    assert abs(metrics.continuity(*ranks, k) - trustworthiness(Z, X, n_neighbors=k)) < 1e-12
    assert np.isnan(metrics.trustworthiness(*ranks, 40))


def test_neighbour_ranks_break_ties_by_order(metrics):
    ranks = metrics.neighbour_ranks(np.array([[0.0], [1.0], [-1.0], [0.0]]))
    assert ranks.tolist() == [[0, 2, 3, 1], [1, 0, 3, 2], [1, 3, 0, 2], [1, 2, 3, 0]]


def test_r_nx_by_hand(metrics):
    X, Z = np.array([[0.0], [1.0], [3.0], [7.0]]), np.array([[0.0], [3.0], [1.0], [7.0]])  # two rows change places
    # nearest neighbours: X 1 0 1 2, Z 2 2 0 1: none shared; two nearest: 12 02 10 21 and 21 20 01 12: all eight shared
    curve = metrics.r_nx(*all_ranks(metrics, X, Z))
    assert np.allclose(curve, [(3 * 0 - 1) / 2, (3 * 1 - 2) / 1], rtol=0, atol=1e-12)
    assert abs(metrics.r_nx_area(curve) - (-0.5 + 1 / 2) / (1 + 1 / 2)) < 1e-12


def test_r_nx_by_counting(metrics, pair):
    ranks_x, ranks_z = all_ranks(metrics, *pair)
    n = len(ranks_x)
    curve = metrics.r_nx(ranks_x, ranks_z)
    for k in (1, 7, n - 2):
        shared = sum(
            len(set(np.argsort(x)[1 : k + 1]) & set(np.argsort(z)[1 : k + 1]))
            for x, z in zip(ranks_x, ranks_z, strict=True)
        )
        assert abs(curve[k - 1] - ((n - 1) * shared / (n * k) - k) / (n - 1 - k)) < 1e-12
    assert np.allclose(metrics.r_nx(ranks_x, ranks_x), 1)


def test_global_shape(metrics, pair):
    X, Z = pair
    d_x, d_z = metrics.pair_distances(X), metrics.pair_distances(Z)
    assert np.allclose(d_x, pdist(X), rtol=0, atol=1e-12)
    assert abs(metrics.spearman(d_x, d_z) - spearmanr(pdist(X), pdist(Z)).statistic) < 1e-12
    assert metrics.stress(d_x, 3 * d_x) < 1e-7  # at the best scale
    assert abs(metrics.stress(np.array([1.0, 2.0]), np.array([2.0, 1.0])) - 0.6) < 1e-12  # a = 4/5: sqrt(1 - 16/25)


def test_triplets_by_enumeration(metrics, pair):
    X, Z = (rows[:12] for rows in pair)
    d_x, d_z = (np.linalg.norm(rows[:, None] - rows[None], axis=-1) for rows in (X, Z))
    triplets = [(a, b, c) for a in range(12) for b in range(12) for c in range(12) if len({a, b, c}) == 3]
    exact = np.mean([(d_x[a, b] < d_x[a, c]) == (d_z[a, b] < d_z[a, c]) for a, b, c in triplets])
    found = metrics.triplet_accuracy(metrics.pair_distances(X), metrics.pair_distances(Z))
    assert abs(found - exact) < 0.01  # 100,000 draws: a standard error of 0.0016
    grid = np.array([0.0, 1.0, 1.0])  # d(0,1) = 0, the rest ties but one: ties in X are left out
    assert metrics.triplet_accuracy(grid, grid) == 1


def test_labels(metrics):
    X, y = datasets.load_iris(return_X_y=True)
    assert metrics.silhouette(X, y) == silhouette_score(X, y)
    assert np.isnan(metrics.silhouette(X, np.zeros(len(X))))
    assert metrics.cluster_nmi(np.eye(3)[y], y) == pytest.approx(1)
    assert metrics.cluster_nmi(np.random.RandomState(0).standard_normal((150, 2)), y) < 0.1
    assert metrics.cross_validated(metrics.knn(True), X, y, True) > 0.9
    assert metrics.linear(False).fit(X, X @ np.ones(4)).score(X, X @ np.ones(4)) > 0.99


def test_robustness_and_stability(metrics, pair):
    Z = pair[1]
    assert abs(metrics.code_shift(Z, Z + 1) - len(Z) * 2 / ((Z - Z.mean(axis=0)) ** 2).sum()) < 1e-12
    turn = np.array([[0.0, -2.0], [2.0, 0.0]])
    assert metrics.agreement(Z, Z @ turn + 5) == pytest.approx(1)
    assert metrics.agreement(Z, np.random.RandomState(1).standard_normal(Z.shape)) < 0.2
    assert np.isnan(metrics.agreement(Z, np.zeros_like(Z)))


def test_pca_of_digits_has_its_known_figures(metrics):
    """Measured elsewhere on all rows, pixels / 16, two components."""
    X, y = datasets.load_digits(return_X_y=True)
    Z = PCA(2).fit_transform(X / 16)
    ranks = all_ranks(metrics, X, Z)
    assert metrics.trustworthiness(*ranks, 5) == pytest.approx(0.830, abs=1e-3)
    assert metrics.continuity(*ranks, 5) == pytest.approx(0.957, abs=1e-3)
    assert metrics.spearman(metrics.pair_distances(X), metrics.pair_distances(Z)) == pytest.approx(0.582, abs=1e-3)
    assert cross_val_score(metrics.knn(True), Z, y, cv=10).mean() == pytest.approx(0.618, abs=0.01)


@pytest.mark.slow
def test_pca_of_mnist_has_its_published_figures_in_4_gb(real_data, tmp_path):
    """Moor and others 2020, table 1: trustworthiness .745, continuity .901 of the 10,000 test digits, k = 10 ... 200.

    In a process of its own, all metrics of pairs together: its peak memory is that of one evaluation.
    """
    path = tmp_path / "mnist10k.npy"
    np.save(path, real_data("mnist10k"))
    code = f"""
import resource, sys
import numpy as np
sys.path.insert(0, {str(QUALITY)!r})
from benchmark_utils import metrics
from sklearn.decomposition import PCA
X = np.load({str(path)!r}) / 255.0
Z = PCA(2, svd_solver="full").fit_transform(X)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ranks = metrics.neighbour_ranks(X), metrics.neighbour_ranks(Z)
curve = metrics.r_nx(*ranks)
print(np.mean([metrics.trustworthiness(*ranks, k) for k in range(10, 201, 10)]))
print(np.mean([metrics.continuity(*ranks, k) for k in range(10, 201, 10)]))
del ranks
x, z = metrics.pair_distances(X), metrics.pair_distances(Z)
metrics.stress(x, z), metrics.triplet_accuracy(x, z), metrics.spearman(x, z)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    trust, continuity, gigabytes = map(float, printed.split())
    assert trust == pytest.approx(0.745, abs=0.005)
    assert continuity == pytest.approx(0.901, abs=0.005)
    assert gigabytes < 4


# Data


def problem_of(utils, load, *arguments):
    offered = utils["data"].offer(load, *arguments)
    assert list(offered) == ["problem"]
    assert "\n" not in offered["problem"]
    return offered["problem"]


def dataset(name, **parameters):
    from benchopt.benchmark import Benchmark

    (found,) = Benchmark(QUALITY).check_dataset_patterns([name], class_only=True)
    return found.get_instance(**parameters)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda X, y: dict(X=np.where(X[3, 1] == X, np.nan, X), y=y), "X contains NaN in 1 rows"),
        (lambda X, y: dict(X=np.where(X[3, 1] == X, np.inf, X), y=y), "infinity"),
        (lambda X, y: dict(X=np.ones_like(X), y=y), "all columns of X are constant"),
        (lambda X, y: dict(X=X, y=np.zeros(len(X), int)), "the target has a single class"),
        (lambda X, y: dict(X=X, y=np.zeros(len(X)), target="number"), "the target is constant"),
        (lambda X, y: dict(X=X, y=y[:-1]), "X has 30 rows, y has 29"),
        (lambda X, y: dict(X=X, y=np.where(y == 1, np.nan, y)), "the target is missing"),
        (lambda X, y: dict(X=X[:5], y=y[:5]), "at least 20 rows"),
    ],
)
def test_bad_arrays_are_one_line(utils, change, said):
    rng = np.random.RandomState(0)
    assert said in problem_of(utils, lambda: change(rng.standard_normal((30, 3)), np.arange(30) % 3))


def test_bad_files_are_one_line(tmp_path):
    rng = np.random.RandomState(0)
    frame = pd.DataFrame(rng.standard_normal((30, 2)), columns=["width", "height"]).assign(price=np.arange(30.0))

    def problem(name, table=None, target=None):
        path = tmp_path / name
        if table is not None:
            table.to_csv(path, index=False)
        data = dataset("file", path=str(path), target=target).get_data()
        assert list(data) == ["problem"]
        assert "\n" not in data["problem"]
        return data["problem"]

    assert "there is no file" in problem("missing.csv")
    assert "no column 'prise': there are 'width', 'height', 'price'" in problem("a.csv", frame, "prise")
    assert "column 'width' should hold numbers, and holds 'n/k'" in problem(
        "b.csv", frame.astype({"width": object}).assign(width=["n/k", *frame["width"][1:]])
    )
    assert "column 'height' has no value" in problem("c.csv", frame.assign(height=np.nan))
    assert "none of csv" in problem("d.txt", frame)
    assert "the target is constant" in problem("e.csv", frame.assign(price=0.5), "price")
    days = pd.Series(pd.date_range("2024-01-01", periods=30))
    said = "column 'day' holds dates such as 2024-01-01"
    for name, column in {"text": days.astype(str), "repeated": days.iloc[[0, 1] * 15].astype(str)}.items():
        assert said in problem(f"{name}.csv", frame.assign(day=column.to_numpy()))
    for name, column in {"dates": days, "objects": days.dt.date, "durations": days - days[0]}.items():
        frame.assign(day=column).to_parquet(tmp_path / f"{name}.parquet")
        assert "column 'day' holds dates such as" in problem(f"{name}.parquet")
    frame.assign(day=["may", "june"] * 15).to_csv(tmp_path / "months.csv", index=False)  # text, and no date
    assert dataset("file", path=str(tmp_path / "months.csv")).get_data()["X"].shape == (30, 5)
    (tmp_path / "f.parquet").write_bytes(b"not parquet")
    assert problem("f.parquet")
    np.savez(tmp_path / "g.npz", rows=rng.standard_normal((30, 2)))
    assert "holds no array X: there are rows" in problem("g.npz")
    assert "give a path" in dataset("file").get_data()["problem"]
    assert "give a path" in dataset("folder").get_data()["problem"]


def test_files_of_ones_own(tmp_path):
    rng = np.random.RandomState(0)
    frame = pd.DataFrame(
        {"size": rng.standard_normal(40), "colour": ["red", "blue", None, "red"] * 10, "price": rng.standard_normal(40)}
    )
    median = frame["size"][1:].median()
    frame.loc[0, "size"] = np.nan
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    frame["size"] = frame["size"].fillna(0)
    np.savez(tmp_path / "a.npz", X=frame[["size", "price"]], y=frame["colour"].fillna("none").to_numpy(str))
    for name in ("a.csv", "a.parquet"):
        data = dataset("file", path=str(tmp_path / name), target="price").get_data()
        assert data["X"].shape == (40, 4)  # size, blue, red, a missing colour
        assert np.isclose(data["X"][0, 0], median)
        assert (data["kind"], data["target"]) == ("table", "number")
    assert (
        dataset("file", path=str(tmp_path / "a.csv"), target="colour").get_data()["problem"].startswith("the target is")
    )
    assert dataset("file", path=str(tmp_path / "a.csv")).get_data()["target"] is None
    data = dataset("file", path=str(tmp_path / "a.npz")).get_data()
    assert (data["X"].shape, data["target"], set(data["y"])) == ((40, 2), "classes", {0, 1, 2})


def test_folders(tmp_path):
    from benchopt.benchmark import Benchmark, _list_parametrized_classes

    rng = np.random.RandomState(0)
    np.savez(tmp_path / "pictures.npz", X=rng.uniform(size=(30, 64)))
    X = np.column_stack([rng.standard_normal(30), rng.randint(3, size=30)])
    np.savez(tmp_path / "table.npz", X=X, y=np.arange(30) % 2, is_categorical=[False, True])
    found = Benchmark(QUALITY).check_dataset_patterns([f"folder[path={tmp_path}]"])
    instances = [instance for instance, _ in _list_parametrized_classes(*found)]
    assert [str(instance) for instance in instances] == [f"folder[{tmp_path.name}/{n}]" for n in ("pictures", "table")]
    assert [instance.get_data()["kind"] for instance in instances] == ["pictures", "table"]
    assert [instance.get_data()["X"].shape[1] for instance in instances] == [64, 4]


@pytest.mark.filterwarnings("ignore:A network error occurred")
def test_openml_is_cached_and_checked(tmp_path, monkeypatch):
    """On the answers that scikit-learn keeps for its own tests, put where it caches what it downloads: no network."""
    answers = Path(datasets.__file__).parent / "tests" / "data" / "openml" / "id_61"
    cache = tmp_path / "openml" / "openml.org"
    places = {
        "api-v1-jd-61": "api/v1/json/data/61",
        "api-v1-jdf-61": "api/v1/json/data/features/61",
        "api-v1-jdq-61": "api/v1/json/data/qualities/61",
        "data-v1-dl-61": "data/v1/download/61/iris.arff",
    }
    for answer, place in places.items():
        (source,) = answers.glob(f"{answer}.*")
        (cache / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, f"{cache / place}.gz")
    openml = dataset("openml", table=61)
    monkeypatch.setitem(type(openml).load.__globals__, "get_data_path", lambda name: tmp_path)
    data = openml.get_data()
    assert data["X"].shape == (150, 4)
    assert set(data["y"]) == {0, 1, 2}
    with gzip.open(cache / "data/v1/download/61/iris.arff.gz", "ab") as file:
        file.write(b"6,3,4,1,Iris-setosa\n")
    with pytest.warns(RuntimeWarning, match="Invalid cache, redownloading"):  # its MD5 sum is another
        openml.get_data()


def test_simulated_shapes_hold_their_truth(utils):
    low_rank = utils["data"].check(
        **type(dataset("simulated")).get_data.__globals__["low_rank"](500, np.random.RandomState(0))
    )
    share = PCA().fit(low_rank["X"]).explained_variance_ratio_
    assert share[:5].sum() > 0.99 > 0.95 > share[:4].sum()
    spheres = type(dataset("simulated")).get_data.__globals__["nested_spheres"](400, np.random.RandomState(0))
    assert spheres["X"].shape == (400, 101)
    assert np.allclose(np.linalg.norm(spheres["X"][spheres["y"] == 10], axis=1), 25)
    assert (spheres["y"] == 10).sum() == 200


@pytest.mark.parametrize("uses_y", [True, False])
def test_a_target_is_given_to_no_method_but_those_that_say_so(utils, uses_y):
    from benchmark_utils.method import codes_of_another_seed, measure

    given = []

    class Model:
        def fit_transform(self, X, y):
            given.append(y)
            return X[:, :2]

    method = SimpleNamespace(
        uses_y=uses_y,
        warm_up_once=lambda: None,
        estimator=lambda *arguments: Model(),
        inverse_transform=lambda model, Z: None,
        log_likelihood=lambda model, X: np.nan,
    )
    X = np.random.RandomState(0).standard_normal((20, 3))
    task = dict(X=X, y=np.arange(20) % 2, groups={"test": X}, n_components=2, random_state=0)
    measure(method, task)
    codes_of_another_seed(method, task)
    assert all((y is task["y"]) if uses_y else (y is None) for y in given)
    assert len(given) == 2
