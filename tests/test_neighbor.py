"""NeighborAutoEncoder: its loss and its neighbours against oracles, and what it promises."""

import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import nan_euclidean_distances
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.pipeline import make_pipeline
from torch.nn import functional as F

from skae import AutoEncoder, Checkpoint, NeighborAutoEncoder, _nearest
from skae._losses import info_nce
from skae._nearest import NeighborRows, nearest, neighbors_of, squared_distances, with_classes
from skae._rows import SparseRows, TableRows

QUICK = dict(hidden_layer_sizes=(16, 8), max_iter=3, random_state=0)


@pytest.fixture
def rows():
    return torch.from_numpy(np.random.RandomState(0).standard_normal((300, 5)).astype(np.float32))


# The loss.


def test_info_nce_is_a_cross_entropy():
    torch.manual_seed(0)
    z, near = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    logits = -torch.log1p(torch.cdist(z, near).square())
    torch.testing.assert_close(info_nce(z, near), F.cross_entropy(logits, torch.arange(7), reduction="none"))
    assert torch.autograd.gradcheck(info_nce, (z, near))
    far = torch.tensor([[0.0], [1e8]], dtype=torch.float64)
    assert float(info_nce(far, far).max()) < 1e-12
    assert info_nce(far[:1], far[:1]).tolist() == [0.0]


def test_a_batch_has_rows_and_some_of_their_neighbours(rows):
    neighbors = neighbors_of(rows, 4)
    together = NeighborRows(rows, neighbors, 3)
    torch.manual_seed(0)
    batch = together[torch.tensor([5, 17])]
    assert batch.shape == (2, 4, 5)
    for place, row in zip((5, 17), batch, strict=True):
        assert torch.equal(row[0], rows[place])
        others = rows[neighbors[place]]
        assert all((others == other).all(1).any() for other in row[1:])
    assert (len(together), together.shape, together.device) == (300, rows.shape, rows.device)


def test_without_its_weight_it_is_autoencoder_of_all_rows(digits):
    options = dict(hidden_layer_sizes=(16,), learning_rate_init=0.003, batch_size=64, max_iter=5, random_state=0)
    plain = AutoEncoder(3, init="random", early_stopping=False, **options).fit(digits)
    model = NeighborAutoEncoder(3, init="random", neighbor_weight=0, **options).fit(digits)
    assert model.loss_curve_ == plain.loss_curve_
    x_hat, expected = (each.inverse_transform(each.transform(digits)) for each in (model, plain))
    np.testing.assert_allclose(x_hat, expected, atol=4e-6)  # components of the one have the units of X
    assert model.best_iter_ == model.n_iter_ == 5


def test_it_begins_at_pca_with_one_scale_for_all_codes(digits):
    model = NeighborAutoEncoder(3, hidden_layer_sizes=(8,), max_iter=1, learning_rate_init=1e-12, random_state=0)
    codes, expected = model.fit(digits).transform(digits), PCA(3).fit_transform(digits)
    signs = np.sign((codes * expected).sum(axis=0))
    np.testing.assert_allclose(codes * signs * expected[:, 0].std(ddof=1), expected, atol=1e-4)
    pca = PCA(3).fit(digits)
    np.testing.assert_allclose(model.inverse_transform(codes), pca.inverse_transform(expected), atol=1e-4)


def test_the_last_epoch_is_kept_and_its_loss_is_that_of_all_rows(digits):
    model = NeighborAutoEncoder(batch_size=2000, **QUICK | {"max_iter": 6}).fit(digits)
    assert model.best_iter_ == model.n_iter_ == len(model.loss_curve_) == 6
    assert model.validation_curve_ is None
    assert model.best_loss_ == pytest.approx(model.loss_curve_[-1], rel=0.2)


# Neighbours.


def test_neighbours_are_those_of_scikit_learn(rows, monkeypatch):
    expected = NearestNeighbors(n_neighbors=6).fit(rows).kneighbors(rows, return_distance=False)[:, 1:]
    monkeypatch.setattr(_nearest, "BLOCK", 64)
    np.testing.assert_array_equal(neighbors_of(rows, 5).numpy(), expected)
    X = sparse.csr_array(np.where(rows > 0.3, rows, 0))
    x = SparseRows(X, X.mean(axis=0), 2.0, torch.device("cpu"))
    expected = NearestNeighbors(n_neighbors=6).fit(X.toarray()).kneighbors(X.toarray())[0][:, 1:]
    found = neighbors_of(x, 5).numpy()
    distances = np.linalg.norm(X.toarray()[:, None] - X.toarray()[found], axis=2)
    np.testing.assert_allclose(distances, expected, atol=1e-5)  # rows that are equally near are in any order


def test_distances_of_cells_that_both_rows_have(rows):
    holed = rows.masked_fill(torch.rand(rows.shape, generator=torch.Generator().manual_seed(0)) < 0.3, torch.nan)
    holed[0, :] = torch.nan
    x = TableRows.of(holed.double())
    found = squared_distances(x[:50], x)
    expected = nan_euclidean_distances(holed[:50].double(), holed.double(), squared=True)
    np.testing.assert_allclose(found, np.where(np.isnan(expected), np.inf, expected), atol=1e-10)
    weights = torch.tensor([1.0, 0.5, 2.0, 1.0, 0.25], dtype=torch.float64)
    found = squared_distances(TableRows.of(holed[:50].double(), weights), TableRows.of(holed.double(), weights))
    i, j = 7, 12
    both = ~(holed[i] + holed[j]).isnan()
    squares = (weights * (holed[i] - holed[j]).double().square())[both].sum() * weights.sum() / weights[both].sum()
    assert float(found[i, j]) == pytest.approx(float(squares))
    places, comparable = nearest(x[:3], x, 5)
    assert comparable.any(1).tolist() == [False, True, True]
    assert places.shape == (3, 5)


def test_rows_that_are_equally_near_do_not_depend_on_rounding():
    rng = np.random.RandomState(0)
    grid = torch.from_numpy(rng.randint(4, size=(400, 3)) / 3.7)
    queries = torch.from_numpy(rng.randint(4, size=(200, 3)) / 3.7)
    whole = nearest(queries, grid, 5)[0]
    assert torch.equal(torch.cat([nearest(query[None], grid, 5)[0] for query in queries]), whole)


@pytest.mark.parametrize("n_rows", [1, 2, 9])
def test_few_rows_have_few_neighbours(rows, n_rows):
    neighbors = neighbors_of(rows[:n_rows], 15)
    assert neighbors.shape == (n_rows, max(1, n_rows - 1))
    if n_rows > 1:
        assert (neighbors != torch.arange(n_rows)[:, None]).all()


@pytest.mark.slow  # the index is compiled when it is imported
def test_the_index_finds_nearly_all_neighbours(rows, monkeypatch):
    pytest.importorskip("pynndescent")
    monkeypatch.setattr(_nearest, "MOST_EXACT", 100)
    exact = NearestNeighbors(n_neighbors=6).fit(rows).kneighbors(rows, return_distance=False)[:, 1:]
    found = neighbors_of(rows, 5)
    assert torch.equal(found, neighbors_of(rows, 5))
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found.numpy(), exact, strict=True)]) > 0.95
    assert (found != torch.arange(300)[:, None]).all()


class Index:
    """As pynndescent's, and the first row is not found as its own neighbour, as happens among equal rows."""

    def __init__(self, data, n_neighbors, random_state):
        found = NearestNeighbors(n_neighbors=n_neighbors).fit(data).kneighbors(data)
        self.neighbor_graph = found[1], found[0]
        self.neighbor_graph[0][0, 0] = self.neighbor_graph[0][0, 1]


def test_many_rows_need_an_index(rows, monkeypatch):
    monkeypatch.setattr(_nearest, "MOST_EXACT", 100)
    monkeypatch.setitem(sys.modules, "pynndescent", SimpleNamespace(NNDescent=Index))
    exact = NearestNeighbors(n_neighbors=6).fit(rows).kneighbors(rows, return_distance=False)[:, 1:]
    found = neighbors_of(rows, 5).numpy()
    np.testing.assert_array_equal(found[1:], exact[1:])
    assert found[0].tolist() == [exact[0][0], *exact[0][:4]]
    monkeypatch.setitem(sys.modules, "pynndescent", None)
    model = NeighborAutoEncoder(**QUICK)
    with pytest.raises(ImportError, match="more than 100 rows need the package pynndescent: pip install pynndescent"):
        model.fit(rows.numpy())
    assert not hasattr(model, "module_")
    holed = rows.clone()
    holed[3, 2] = torch.nan
    model.fit(holed.numpy())  # exact: the index knows no missing cells


# Classes.


def test_rows_with_a_class_have_neighbours_of_it(rows):
    classes = torch.tensor([0, 1, -1]).repeat(100)
    classes[299] = 2  # alone
    neighbors = neighbors_of(rows, 10)
    torch.manual_seed(0)
    found = with_classes(neighbors, classes)
    own = torch.arange(300)[:, None]
    assert (found != own).all()
    assert torch.equal(found[classes == -1], neighbors[classes == -1])
    assert torch.equal(found[299], neighbors[299])
    labelled = (classes >= 0) & (classes < 2)
    assert set(classes[found[labelled]].flatten().tolist()) == {-1, 0, 1}
    assert ((classes[found] == classes[:, None]) | (classes[found] == -1))[labelled].all()
    assert ((classes[found] == classes[:, None]).sum(1) >= 5)[labelled].all()
    members = found[labelled & (classes == 0)]
    assert len(members.unique()) > 95  # drawn from all of the class


def test_classes_of_any_kind_and_those_that_are_not_known(digits):
    X, y = digits[:200], load_digits().target[:200]
    codes = NeighborAutoEncoder(**QUICK).fit(X, y).transform(X)
    for same in (y.tolist(), y.astype(float), pd.Series(y.astype(str)), y[:, None]):
        np.testing.assert_array_equal(NeighborAutoEncoder(**QUICK).fit(X, same).transform(X), codes)
    plain = NeighborAutoEncoder(**QUICK).fit(X).transform(X)
    assert np.abs(plain - codes).max() > 1e-3
    number = np.arange(200.0) // 2  # whole, and a number to predict all the same
    for unknown in (np.full(200, -1), np.full(200, np.nan), [None] * 200, y + 0.5, number, np.eye(200)[:, :3]):
        np.testing.assert_array_equal(NeighborAutoEncoder(**QUICK).fit(X, unknown).transform(X), plain)
    some = np.where(np.arange(200) < 100, y, -1)
    missing = [None if label == -1 else f"digit {label}" for label in some]
    expected = NeighborAutoEncoder(**QUICK).fit(X, some).transform(X)
    for same in (missing, pd.Series(missing, dtype="string"), pd.Series(some).astype("Int64").mask(some < 0)):
        np.testing.assert_array_equal(NeighborAutoEncoder(**QUICK).fit(X, same).transform(X), expected)
    np.testing.assert_array_equal(
        NeighborAutoEncoder(**QUICK).fit(X, np.where(some < 0, np.nan, some)).transform(X), expected
    )
    assert np.abs(expected - codes).max() > 1e-3
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        NeighborAutoEncoder(**QUICK).fit(X, y[:-1])


def test_classes_go_with_their_rows(digits):
    X, y = digits[:120], load_digits().target[:120]
    counts = np.random.RandomState(0).randint(3, size=120)
    weighted = NeighborAutoEncoder(**QUICK).fit(X, y, sample_weight=counts)
    order = np.random.RandomState(1).permutation(counts.sum())
    repeated = NeighborAutoEncoder(**QUICK).fit(np.repeat(X, counts, axis=0)[order], np.repeat(y, counts)[order])
    np.testing.assert_array_equal(weighted.transform(X), repeated.transform(X))


# Placement beside training rows.


def test_new_rows_at_the_median_of_their_neighbours(digits):
    train, test = digits[:150], digits[150:200]
    model = NeighborAutoEncoder(transform_neighbors=3, **QUICK).fit(train)
    alone = NeighborAutoEncoder(**QUICK).fit(train)
    places = NearestNeighbors(n_neighbors=3).fit(train).kneighbors(test, return_distance=False)
    np.testing.assert_allclose(model.transform(test), np.median(alone.transform(train)[places], axis=1))
    np.testing.assert_array_equal(model.set_params(transform_neighbors=None).transform(test), alone.transform(test))
    with pytest.raises(ValueError, match=r"transform_neighbors=5 needs the training rows, .* Call fit again"):
        alone.set_params(transform_neighbors=5).transform(test)


@pytest.mark.parametrize("kind", ["dense", "sparse", "holes", "table"])
def test_training_rows_are_kept_only_where_they_are_asked_for(digits, kind):
    X = digits[:200].copy()
    if kind == "holes":
        X[np.random.RandomState(0).rand(*X.shape) < 0.1] = np.nan
    if kind == "sparse":
        X = sparse.csr_array(X)
    if kind == "table":
        X = pd.DataFrame(X[:, 10:16], columns=list("abcdef")).assign(word=np.where(X[:, 20] > 0.5, "yes", "no"))
    model = NeighborAutoEncoder(transform_neighbors=4, **QUICK).fit(X)
    data, reread = pickle.dumps(model), pickle.loads(pickle.dumps(model))
    assert b"torch" not in data
    assert len(data) > len(pickle.dumps(NeighborAutoEncoder(**QUICK).fit(X))) + 5000
    codes = model.transform(X)
    assert np.isfinite(codes).all()
    np.testing.assert_array_equal(reread.transform(X), codes)
    some = X.iloc[:7] if kind == "table" else X[:7]
    np.testing.assert_allclose(model.transform(some), codes[:7], atol=1e-9)
    assert model.score(X) == pytest.approx(reread.score(X))


def test_a_row_without_a_cell_in_common_is_placed_by_the_network(digits):
    X = digits[:100].copy()
    X[:, 20][5:] = np.nan
    model = NeighborAutoEncoder(transform_neighbors=3, **QUICK).fit(X)
    empty = np.full((1, 64), np.nan)
    network = NeighborAutoEncoder(**QUICK).fit(X)
    np.testing.assert_allclose(model.transform(empty), network.transform(empty))


# What it is for.


@pytest.fixture(scope="module")
def held_out():
    X, y = load_digits(return_X_y=True)
    return train_test_split(X / 16, y, random_state=0, stratify=y)


def test_maps_keep_neighbourhoods(held_out):
    train, test, y_train, y_test = held_out
    model = NeighborAutoEncoder(hidden_layer_sizes=(128, 128), max_iter=40, random_state=0).fit(train)
    accuracies = [
        KNeighborsClassifier().fit(each.transform(train), y_train).score(each.transform(test), y_test)
        for each in (model, PCA(2).fit(train))
    ]
    assert accuracies[0] > 0.85 > accuracies[1] + 0.15
    assert model.score(test) > 0.4


def test_classes_part_a_map(held_out):
    train, test, y_train, y_test = held_out
    model = NeighborAutoEncoder(hidden_layer_sizes=(128, 128), max_iter=25, random_state=0)
    with_classes = make_pipeline(model, KNeighborsClassifier()).fit(train, y_train).score(test, y_test)
    without = (
        KNeighborsClassifier().fit(model.fit(train).transform(train), y_train).score(model.transform(test), y_test)
    )
    assert with_classes > without + 0.03


def test_labels_of_equal_rows_count_wherever_they_stand(table):
    X = table
    labels, unknown = (X[:, 0] > 0).astype(int), np.full(len(X), -1)
    twice = np.vstack([X, X])
    models = [
        NeighborAutoEncoder(2, **QUICK).fit(twice, np.concatenate(y))
        for y in ((labels, unknown), (unknown, labels), (unknown, unknown))
    ]
    codes = [model.transform(X) for model in models]
    np.testing.assert_array_equal(codes[0], codes[1])
    assert np.abs(codes[0] - codes[2]).max() > 1e-3


def test_what_needs_all_rows_is_refused_without_them(table, tmp_path):
    X = table
    model = NeighborAutoEncoder(2, transform_neighbors=3, **QUICK).fit(X)
    codes = model.transform(X)
    with pytest.raises(ValueError, match="partial_fit has only those of a call"):
        model.partial_fit(X[:50])
    np.testing.assert_array_equal(model.transform(X), codes)
    pytest.importorskip("onnxscript")
    with pytest.raises(ValueError, match="A graph has no training rows"):
        model.to_onnx(tmp_path / "encoder.onnx")


def test_a_checkpoint_is_of_the_same_classes(table, tmp_path):
    X = table

    def fit(y):
        return NeighborAutoEncoder(2, **QUICK).set_callbacks(Checkpoint(tmp_path / "fit.npz", every=0)).fit(X, y)

    fit(None)
    with pytest.raises(ValueError, match="the neighbours of the rows, or y, differ"):
        fit((X[:, 0] > 0).astype(int))
