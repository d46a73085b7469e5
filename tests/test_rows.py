"""Rows: copies, weights, groups, validation rows of one's own, sparse input."""

import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import skae
from skae import _rows, _selection, _training
from skae._axes import principal_axes

QUICK = dict(max_iter=3, random_state=0)
every_member = pytest.mark.parametrize(
    "name",
    [
        name
        for name in skae.__all__
        if issubclass(getattr(skae, name), skae.BaseAutoEncoder) and name != "BaseAutoEncoder"
    ],
)


def member(name, *arguments, **options):
    return getattr(skae, name)(*arguments, **{**QUICK, **options})


@pytest.fixture
def counts():
    return np.random.RandomState(0).randint(0, 4, 200)


# Copies and weights.


def test_copies_become_one_row_with_their_weights():
    X = np.array([[1.0, 2.0], [0.0, 5.0], [1.0, 2.0], [-0.0, 5.0], [3.0, 3.0], [7.0, 7.0]])
    found = _rows.distinct(X, np.array([1.0, 0.5, 2.0, 0.25, 4.0, 0.0]))
    weights = {tuple(row): weight for row, weight in zip(found.X.tolist(), found.weights, strict=True)}
    assert weights == {(1, 2): 3, (0, 5): 0.75, (3, 3): 4}  # 0 and -0 are equal; without weight, left out
    shuffled = _rows.distinct(X[::-1], np.array([0.0, 4.0, 0.25, 2.0, 0.5, 1.0]))
    np.testing.assert_array_equal(found.X, shuffled.X)
    np.testing.assert_array_equal(found.weights, shuffled.weights)
    grouped = _rows.distinct(X, groups=np.array(list("aabbcc")))  # copies of other groups are other rows
    assert grouped.weights is None
    np.testing.assert_array_equal(grouped.groups, [0, 0, 1, 1, 2, 2])
    assert _rows.distinct(X, groups=np.array(list("aaabbb"))).weights.tolist().count(2) == 1


def test_rows_stay_as_they_are_if_each_counts_once():
    X = np.random.RandomState(0).standard_normal((50, 3))
    for found in (_rows.distinct(X), _rows.distinct(X, np.ones(50))):
        assert found.X is X
        assert found.weights is None
    assert _rows.distinct(X, np.r_[0.0, np.ones(49)]).weights is None  # that row left out is all


def test_copies_of_sparse_rows_are_those_of_dense_ones():
    X = sparse.random_array((60, 5), density=0.3, rng=np.random.default_rng(0), format="csr")
    X = sparse.vstack([X, X[:7]], format="csr")
    X.data[0] = 0.0  # stored, and zero
    found, expected = _rows.distinct(X), _rows.distinct(X.toarray())
    np.testing.assert_array_equal(found.X.toarray(), expected.X)
    np.testing.assert_array_equal(found.weights, expected.weights)


@pytest.mark.parametrize("weights", [[1, 2, 3, 4], [0.3, 0.1, 0.5, 0.1], [5, 5, 5, 5], [1, 1e-9, 1, 1]])
@pytest.mark.parametrize("n_draws", [1, 4, 100])
def test_draws_are_in_proportion_to_weights(weights, n_draws):
    rows, weights = torch.tensor([7, 8, 9, 3]), torch.tensor(weights, dtype=torch.float64)
    expected, total = n_draws * weights / weights.sum(), torch.zeros(4)
    for seed in range(200):
        torch.manual_seed(seed)
        drawn = _rows.in_proportion(rows, weights, n_draws)
        times = torch.stack([(drawn == row).sum() for row in rows])
        assert ((times - expected).abs() < 1).all()
        total += times
    torch.testing.assert_close((total / 200).double(), expected, atol=0.12, rtol=0.1)


def test_what_knows_no_weights_sees_rows_as_often_as_they_count():
    rows, weights = torch.arange(3), torch.tensor([1.0, 4.0, 2.0]).double()
    assert _rows.representative(rows, weights).bincount().tolist() == [1, 4, 2]
    assert len(_rows.representative(rows, torch.tensor([1.0, 1e9, 2.0]).double())) == 30  # not without end


@pytest.mark.parametrize("shape", [(200, 6), (12, 40)])
def test_weighted_principal_axes_are_those_of_repeated_rows(shape):
    rng = np.random.RandomState(1)
    X, counts = rng.standard_normal(shape).astype(np.float32), rng.randint(1, 5, shape[0])
    repeated = np.repeat(X, counts, axis=0).astype(np.float64)
    found = principal_axes(torch.from_numpy(X), 4, weights=torch.from_numpy(counts.astype(np.float64)))
    pca = PCA(4, svd_solver="full").fit(repeated)
    np.testing.assert_allclose(found.mean, repeated.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.variances[:4], pca.explained_variance_, rtol=1e-10)
    np.testing.assert_allclose(np.abs(found.axes[:4].numpy() @ pca.components_.T), np.eye(4), atol=1e-9)
    assert found.total == pytest.approx(repeated.var(axis=0, ddof=1).sum(), rel=1e-10)


def test_randomized_axes_take_weights_too(monkeypatch):
    monkeypatch.setattr("skae._axes.EXACT_SIZE", 20)
    rng = np.random.RandomState(1)
    X = (rng.standard_normal((150, 60)) * np.geomspace(5, 0.01, 60)).astype(np.float32)
    weights = torch.from_numpy(rng.randint(1, 5, 150).astype(np.float64))
    found = principal_axes(torch.from_numpy(X), 3, weights=weights)
    pca = PCA(3, svd_solver="full").fit(np.repeat(X.astype(np.float64), weights.int().numpy(), axis=0))
    np.testing.assert_allclose(found.variances[:3], pca.explained_variance_, rtol=1e-4)


@every_member
def test_integer_weights_are_repeated_rows(name, table, counts):
    order = np.random.RandomState(1).permutation(200)
    weighted = member(name).fit(table[order], sample_weight=counts[order])
    repeated = member(name).fit(np.repeat(table, counts, axis=0))
    np.testing.assert_array_equal(weighted.transform(table), repeated.transform(table))
    assert weighted.validation_curve_ == repeated.validation_curve_
    assert weighted.n_samples_ == 200
    plain = member(name).fit(table)
    np.testing.assert_array_equal(
        plain.transform(table), member(name).fit(table, sample_weight=np.ones(200)).transform(table)
    )
    assert np.abs(weighted.transform(table) - plain.transform(table)).max() > 1e-6


def test_a_linear_fit_with_weights_is_pca_of_repeated_rows(table, counts):
    repeated = np.repeat(table, counts, axis=0)
    model = member("AutoEncoder", 2, hidden_layer_sizes=()).fit(table, sample_weight=counts)
    pca = PCA(2).fit(repeated)
    np.testing.assert_allclose(model.mean_, pca.mean_, atol=1e-12)
    expected = pca.inverse_transform(pca.transform(table))
    np.testing.assert_allclose(model.inverse_transform(model.transform(table)), expected, atol=1e-6)
    assert model.score(table, sample_weight=counts) == pytest.approx(
        r2_score(repeated, pca.inverse_transform(pca.transform(repeated)), multioutput="variance_weighted"), abs=1e-6
    )


def test_a_linear_vae_with_weights_is_probabilistic_pca_of_repeated_rows(table, counts):
    model = member("VAE", 2, hidden_layer_sizes=()).fit(table, sample_weight=counts)
    expected = PCA(2).fit(np.repeat(table, counts, axis=0)).score(np.repeat(table, counts, axis=0))
    assert model.score(table, sample_weight=counts) == pytest.approx(expected, abs=1e-5)


def test_weights_choose_what_is_learned(table):
    # two halves that no one number describes: the half that counts is rebuilt well, whichever it is
    rng = np.random.RandomState(0)
    X = np.r_[rng.standard_normal((300, 1)) @ [[1, 1, 0, 0]], rng.standard_normal((300, 1)) @ [[0, 0, 1, -1]]]
    X += 0.01 * rng.standard_normal(X.shape)
    for heavy in (slice(0, 300), slice(300, 600)):
        weights = np.full(600, 0.01)
        weights[heavy] = 1
        for init in ("pca", "random"):
            model = skae.AutoEncoder(1, init=init, max_iter=20, random_state=0).fit(X, sample_weight=weights)
            assert model.score(X[heavy]) > 0.95
            assert model.score(X, sample_weight=weights) > 0.95


def test_weights_of_validation_rows_choose_the_epoch():
    x, weights = torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([3.0, 0.0, 1.0]).double()
    folds = tuple(_training.Fold(torch.tensor([0]), torch.tensor(rows)) for rows in ([0, 1], [2]))
    data = _training.Data(x, torch.arange(3), folds, weights=weights)
    pairs = [(lambda module, x: x[:, 0], None)]
    run = _selection.Run([(torch.nn.Linear(1, 1), pairs)] * 2, keeps=False)
    found = _selection._validation_losses(run, data, _training.Schedule(1, 0.1, lambda n_rows: 1, seed=0), 1)
    assert float(found.mean()) == pytest.approx((3 * 1 + 6) / 4)


@every_member
def test_score_and_partial_fit_take_weights(name, table, counts):
    model = member(name).fit(table)
    kept = counts > 0
    assert model.score(table, sample_weight=counts) == pytest.approx(model.score(np.repeat(table, counts, axis=0)))
    first = member(name).partial_fit(table, sample_weight=kept.astype(float))
    np.testing.assert_allclose(first.mean_, table[kept].mean(axis=0))
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        model.fit(table, sample_weight=counts - 1)
    with pytest.raises(ValueError, match=r"sample_weight.shape == \(3,\), expected \(200,\)!"):
        model.score(table, sample_weight=[1, 2, 3])


@pytest.mark.parametrize("parameters", [{}, {"cv": 3}, {"validation_fraction": 0.2}])
def test_equal_rows_are_on_one_side_of_the_split(parameters, monkeypatch):
    given, choose = [], _selection.choose
    monkeypatch.setattr(
        "skae._selection.choose", lambda runs, data, *a, **k: given.append(data) or choose(runs, data, *a, **k)
    )
    X = np.random.RandomState(0).standard_normal((60, 5))
    skae.AutoEncoder(**QUICK, **parameters).fit(np.tile(X, (5, 1)))
    (data,) = given
    assert len(data.rows) == 60  # each once, so that no two of them are equal
    for training, validation in data.folds:
        assert sorted([*training.tolist(), *validation.tolist()]) == list(range(60))


@pytest.mark.parametrize("sample", ["bootstrap", "copies"])
def test_repeated_rows_do_not_defeat_the_pca_fallback(sample):
    gaps = []
    for seed in range(3):
        rng = np.random.RandomState(seed)
        n_rows = 200 if sample == "bootstrap" else 60
        rows, test = (rng.standard_normal((n, 20)) * np.geomspace(2, 0.5, 20) for n in (n_rows, 1000))
        X = rows[rng.randint(n_rows, size=n_rows)] if sample == "bootstrap" else np.tile(rows, (5, 1))
        pca = PCA(5).fit(X)
        expected = r2_score(test, pca.inverse_transform(pca.transform(test)), multioutput="variance_weighted")
        gaps.append(skae.AutoEncoder(5, random_state=seed).fit(X).score(test) - expected)
    assert min(gaps) > -0.02


# Groups and validation rows of one's own.


@pytest.mark.parametrize(("sizes", "n_validation"), [([5] * 40, 20), ([50, 30, 20], 30), ([90, 10], 30), ([60, 40], 5)])
def test_groups_stay_together(sizes, n_validation):
    groups, n_rows = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)), sum(sizes)
    for seed in range(20):
        rows, training, validation = _training.split(n_rows, n_validation, seed, torch.device("cpu"), groups)
        assert sorted(rows.tolist()) == list(range(n_rows))
        assert sorted([*training.tolist(), *validation.tolist()]) == list(range(n_rows))
        assert not set(groups[training].tolist()) & set(groups[validation].tolist())
        assert len(training) > 0
        assert 0 < len(validation) <= max(n_validation, n_rows // 3, min(sizes))


def test_groups_in_fit(table):
    groups = np.repeat(np.array(list("abcdefghij")), 20)
    first, second = (skae.AutoEncoder(**QUICK).fit(table, groups=g) for g in (groups, list(groups)))
    np.testing.assert_array_equal(first.transform(table), second.transform(table))
    assert first.validation_curve_ != skae.AutoEncoder(**QUICK).fit(table).validation_curve_
    with pytest.raises(ValueError, match="groups has a single group"):
        skae.AutoEncoder(**QUICK).fit(table, groups=np.zeros(200))
    skae.AutoEncoder(early_stopping=False, **QUICK).fit(table, groups=np.zeros(200))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        skae.AutoEncoder(**QUICK).fit(table, groups=[1, 2])


def test_groups_keep_near_copies_together():
    # five noisy copies of each row: held-out ones among their copies would take memory for structure
    rng = np.random.RandomState(0)
    rows, test = (rng.standard_normal((n, 20)) * np.geomspace(2, 0.5, 20) for n in (60, 1000))
    X = np.repeat(rows, 5, axis=0) + 1e-3 * rng.standard_normal((300, 20))
    pca = PCA(5).fit(X)
    expected = r2_score(test, pca.inverse_transform(pca.transform(test)), multioutput="variance_weighted")
    model = skae.AutoEncoder(5, random_state=0)
    assert model.fit(X).score(test) < expected - 0.1
    assert model.fit(X, groups=np.repeat(np.arange(60), 5)).score(test) > expected - 0.02


def test_validation_rows_of_ones_own(table):
    X, X_val = table[:150], table[150:]
    model = skae.AutoEncoder(2, hidden_layer_sizes=(), **QUICK).fit(X, X_val=X_val)
    np.testing.assert_allclose(model.mean_, X.mean(axis=0))
    pca = PCA(2).fit(X)  # all rows of X train
    squared = np.square(X_val - pca.inverse_transform(pca.transform(X_val))).sum(axis=1)
    assert model.validation_curve_[0] == pytest.approx(squared.mean() / model.scale_**2, rel=1e-4)
    weights = np.r_[np.ones(25), np.zeros(25)]
    model.fit(X, X_val=X_val, sample_weight_val=weights)
    assert model.validation_curve_[0] == pytest.approx(squared[:25].mean() / model.scale_**2, rel=1e-4)
    assert model.n_samples_ == 150
    with pytest.raises(ValueError, match="X has 5 features, but AutoEncoder is expecting 6 features"):
        model.fit(X, X_val=X_val[:, :5])
    with pytest.raises(ValueError, match="early_stopping is False"):
        skae.AutoEncoder(early_stopping=False).fit(X, X_val=X_val)
    with pytest.raises(ValueError, match="X_val was not provided"):
        model.fit(X, sample_weight_val=weights)


@sklearn.config_context(enable_metadata_routing=True)
def test_metadata_routing(table, counts):
    inner = (
        skae.AutoEncoder(**QUICK).set_fit_request(sample_weight=True, groups=True).set_score_request(sample_weight=True)
    )
    groups, weights = np.repeat(np.arange(20), 10), counts + 0.5
    params = {"sample_weight": weights, "groups": groups}
    found = cross_validate(inner, table, cv=GroupKFold(4), params=params, return_indices=True, return_estimator=True)
    train, test = found["indices"]["train"][0], found["indices"]["test"][0]
    alone = skae.AutoEncoder(**QUICK).fit(table[train], sample_weight=weights[train], groups=groups[train])
    np.testing.assert_array_equal(alone.transform(table), found["estimator"][0].transform(table))
    assert found["test_score"][0] == alone.score(table[test], sample_weight=weights[test])
    search = GridSearchCV(
        make_pipeline(StandardScaler().set_fit_request(sample_weight=True), inner), {"autoencoder__alpha": [0.1]}
    )
    assert np.isfinite(search.fit(table, sample_weight=weights, groups=groups).best_score_)


@sklearn.config_context(enable_metadata_routing=True)
def test_a_pipeline_transforms_validation_rows(table):
    scaler, inner = StandardScaler(), skae.AutoEncoder(**QUICK).set_fit_request(X_val=True)
    pipeline = Pipeline([("scale", scaler), ("code", inner)], transform_input=["X_val"]).fit(
        table[:150], X_val=table[150:]
    )
    scaled = StandardScaler().fit(table[:150]).transform
    alone = skae.AutoEncoder(**QUICK).fit(scaled(table[:150]), X_val=scaled(table[150:]))
    assert pipeline["code"].validation_curve_ == alone.validation_curve_


# Sparse X.


@every_member
@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csc_matrix, sparse.coo_array])
def test_sparse_rows_are_dense_rows(name, digits, kind):
    X = digits[:300]
    options = {"n_channels": 16} if name == "TDVAE" else {}  # four steps, not 64
    expected = member(name, **options).fit(X)
    model = member(name, **options).fit(kind(X))
    np.testing.assert_allclose(model.mean_, expected.mean_, atol=1e-12)
    assert model.scale_ == pytest.approx(expected.scale_, rel=1e-12)
    assert model.loss_curve_ == pytest.approx(expected.loss_curve_, rel=1e-2)
    for method in ("transform", "score_samples"):
        np.testing.assert_array_equal(getattr(expected, method)(kind(X)), getattr(expected, method)(X))
    assert expected.score(kind(X)) == expected.score(X)
    assert expected.transform(kind(X.astype(np.float32))).dtype == np.float32
    model.partial_fit(kind(X[:50])).partial_fit(X[:50])
    assert member(name, **options).partial_fit(kind(X[:50])).partial_fit(kind(X[50:])).transform(kind(X)).shape == (
        300,
        2,
    )


def test_sparse_rows_that_are_wide_have_the_same_axes(monkeypatch):
    rng = np.random.default_rng(0)
    X = sparse.random_array((400, 4000), density=0.02, rng=rng, format="csr") @ sparse.diags_array(
        np.geomspace(3, 0.1, 4000)
    )
    X = sparse.csr_array(X)
    counts = np.random.RandomState(0).randint(1, 3, 400)
    options = dict(hidden_layer_sizes=(), max_iter=1, learning_rate_init=1e-12, random_state=0)
    monkeypatch.setattr("skae._axes.MOST_NUMBERS", 1000)
    for weights in (None, counts):
        model = skae.AutoEncoder(3, **options).fit(X, sample_weight=weights)
        repeated = np.repeat(X.toarray(), counts if weights is not None else 1, axis=0)
        pca = PCA(3, svd_solver="full").fit(repeated)
        expected = r2_score(
            X.toarray(), pca.inverse_transform(pca.transform(X.toarray())), multioutput="variance_weighted"
        )
        assert model.score(X) == pytest.approx(expected, abs=1e-6)
    twice = [skae.AutoEncoder(3, **options).fit(X).transform(X) for _ in range(2)]
    np.testing.assert_array_equal(*twice)


def test_sparse_probabilities_bags_of_words_and_a_condition():
    X = sparse.csr_array((load_digits().data[:200] > 7).astype(float))
    for model in (skae.VAE(likelihood="bernoulli", **QUICK), skae.AutoEncoder(loss="binary_cross_entropy", **QUICK)):
        assert np.isfinite(model.fit(X).transform(X)).all()
        with pytest.raises(ValueError, match=r"X must be in \[0, 1\]"):
            model.fit(2 * X)
        np.testing.assert_array_equal(model.transform(1.5 * X), model.transform(X))
    with pytest.raises(
        TypeError, match="Sparse data was passed, but ConditionalVAE with condition_features needs dense"
    ):
        skae.ConditionalVAE(condition_features=[3]).fit(X)


@pytest.mark.slow
def test_a_sparse_fit_takes_little_memory():
    """20,000 x 10,000 with 1 % that is not zero, dense in float32, would be 800 MB; the process is within 1 GB."""
    code = (
        "import resource, numpy as np, skae\n"
        "from scipy import sparse\n"
        "X = sparse.random_array((20_000, 10_000), density=0.01, rng=np.random.default_rng(0), format='csr')\n"
        "model = skae.AutoEncoder(10, max_iter=1, random_state=0).fit(X)\n"
        "model.transform(X), model.score(X)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)\n"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert float(printed) < 1


def test_held_out_rows_of_a_real_table_with_weights():
    X = StandardScaler().fit_transform(load_breast_cancer().data)
    train, test = train_test_split(X, random_state=0)
    weights = np.random.RandomState(0).uniform(0.1, 2, len(train))
    pca = PCA(5).fit(train)
    expected = r2_score(test, pca.inverse_transform(pca.transform(test)), multioutput="variance_weighted")
    assert skae.AutoEncoder(5, max_iter=30, random_state=0).fit(train, sample_weight=weights).score(test) > expected


def test_weights_of_rows_are_those_of_their_conditions(table, counts):
    options = dict(condition_features=[0], categorical_features=[], **QUICK)
    weighted = skae.ConditionalVAE(**options).fit(table, sample_weight=counts)
    repeated = skae.ConditionalVAE(**options).fit(np.repeat(table, counts, axis=0))
    np.testing.assert_allclose(weighted.transform(table), repeated.transform(table), atol=1e-4)


def test_weights_and_groups_that_cannot_be_used(table):
    model = skae.VAE(**QUICK)
    with pytest.raises(ValueError, match="sample_weight is too large"):
        model.fit(table, sample_weight=np.full(200, 1e307))
    for missing in (None, np.nan, pd.NA):
        with pytest.raises(ValueError, match="Input groups contains NaN or another missing value"):
            model.fit(table, groups=pd.Series(["a", missing] * 100, dtype=object))
    assert not hasattr(model, "module_")


def test_a_group_without_weight_is_no_group(table):
    groups, weights = np.repeat([0, 1, 2], [20, 90, 90]), np.r_[np.zeros(20), np.ones(180)]
    found = skae.AutoEncoder(**QUICK).fit(table, sample_weight=weights, groups=groups)
    expected = skae.AutoEncoder(**QUICK).fit(table[20:], groups=groups[20:])
    assert found.validation_curve_ == expected.validation_curve_ is not None


def test_validation_rows_may_be_outside_the_unit_interval(digits):
    model = skae.VAE(likelihood="bernoulli", **QUICK).fit(digits[:150], X_val=1.1 * digits[150:200])
    assert len(model.validation_curve_) == 4


def test_an_interrupted_score_leaves_torch_as_it_was(table, monkeypatch):
    model = skae.AutoEncoder(**QUICK).fit(table)
    monkeypatch.setattr(model, "_decode", lambda z: 1 / 0)
    for method in ("score", "score_samples"):
        with pytest.raises(ZeroDivisionError) as error:
            getattr(model, method)(table)
        assert error.traceback  # and with it the frames, which keep what they hold
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("n_rows", [1, 5])
def test_sparse_rows_without_variance(n_rows):
    for X in (np.zeros((n_rows, 3500)), np.ones((n_rows, 20))):
        for name in ("AutoEncoder", "VAE", "VQVAE"):
            for method in ("fit", "partial_fit"):
                model = getattr(member(name), method)(sparse.csr_array(X))
                np.testing.assert_allclose(model.inverse_transform(model.transform(X)), X, atol=1e-3)
    with monkey_numbers(1):
        assert skae.AutoEncoder(**QUICK).fit(sparse.csr_array(np.zeros((5, 3500)))).scale_ == 1


@contextmanager
def monkey_numbers(number):
    """Within, sparse rows of so many numbers are no longer made dense for their principal axes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skae._axes.MOST_NUMBERS", number)
        yield


def test_collapse_is_told_of_sparse_rows_too():
    X = sparse.random_array((200, 30), density=0.2, rng=np.random.default_rng(0), format="csr")
    with pytest.warns(ConvergenceWarning, match="collapsed to the prior"):
        skae.VAE(2, beta=1e3, **QUICK).fit(X)


def test_sparse_rows_may_name_an_entry_twice():
    rng = np.random.RandomState(0)
    X = sparse.csr_array(rng.rand(50, 4))
    twice = sparse.csr_array((np.repeat(X.data / 2, 2), np.repeat(X.indices, 2), 2 * X.indptr), shape=X.shape)
    assert not twice.has_canonical_format
    model = skae.AutoEncoder(**QUICK)
    np.testing.assert_allclose(model.fit(twice).mean_, model.fit(X).mean_)
    assert not twice.has_canonical_format  # the caller's stays as it was
    with pytest.raises(ValueError, match=r"X must be in \[0, 1\]"):
        skae.VAE(likelihood="bernoulli").fit(sparse.csr_array((np.full(4, 0.8), [0, 0, 1, 1], [0, 2, 4]), shape=(2, 3)))


def test_nan_that_is_assumed_away_in_sparse_rows():
    X = sparse.csr_array(np.random.RandomState(0).rand(50, 4))
    X.data[3] = np.nan
    for model in (skae.AutoEncoder(**QUICK), skae.VAE(likelihood="bernoulli", **QUICK)):
        with sklearn.config_context(assume_finite=True), pytest.raises(ValueError, match="Input X contains NaN"):
            model.fit(X)


def test_sparse_rows_scaled_otherwise_are_refused(digits):
    X = sparse.random_array((100, 64), density=0.05, rng=np.random.default_rng(0), format="csr")
    model = skae.VAE(likelihood="bernoulli", **QUICK).fit(X)
    with pytest.raises(ValueError, match=r"X must be in \[0, 1\]"):
        model.transform(255 * X)


def test_a_share_of_the_variance_of_sparse_rows(digits, monkeypatch):
    X = sparse.csr_array(digits)
    assert skae.AutoEncoder(0.5, **QUICK).fit(X).n_components_ == PCA(0.5, svd_solver="full").fit(digits).n_components_
    monkeypatch.setattr("skae._initialization.EXACT_SIZE", 50)
    with pytest.raises(
        ValueError, match=r"n_components=0.5 is a share of the variance, which needs all principal axes"
    ):
        skae.AutoEncoder(0.5, **QUICK).fit(X)
