"""The order of components: the same reconstructions in other coordinates, PCA's own where the network is PCA."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.decomposition import PCA
from torch import nn

import skae
from skae import _base, _mapped
from skae._initialization import axes_of
from skae._ordering import effects_of, moments_of
from skae._training import Data, Fold

QUICK = dict(max_iter=3, random_state=0)
LINEAR = dict(hidden_layer_sizes=(), random_state=0)
MODELS = [
    skae.AutoEncoder(4, **QUICK),
    skae.AutoEncoder(4, init="random", loss="binary_cross_entropy", **QUICK),
    skae.AutoEncoder(3, hidden_layer_sizes=(), init="random", **QUICK),
    skae.DenoisingAutoEncoder(4, init="random", **QUICK),
    skae.ContractiveAutoEncoder(4, init="random", **QUICK),
    skae.SparseAutoEncoder(9, init="random", **QUICK),
    skae.SparseAutoEncoder(9, penalty="l1", init="random", **QUICK),
    skae.SparseAutoEncoder(9, penalty="kl", **QUICK),
    skae.VAE(4, init="random", **QUICK),
    skae.VAE(4, init="random", likelihood="bernoulli", **QUICK),
    skae.VAE(4, init="random", prior="vamp", **QUICK),
    skae.VAE(4, init="random", prior="flow", **QUICK),
    skae.ConditionalVAE(3, init="random", condition_features=[2, 0], **QUICK),
    skae.VQVAE(4, n_codes=9, init="random", **QUICK),
    skae.VQVAE(6, n_codes=5, n_codebooks=2, init="random", **QUICK),
    skae.AdversarialAutoEncoder(4, init="random", **QUICK),
]
ROTATED = skae.AutoEncoder, skae.DenoisingAutoEncoder, skae.AdversarialAutoEncoder


@pytest.fixture
def X(table):
    return (table - table.min(axis=0)) / np.ptp(table, axis=0)


@pytest.fixture
def ordered(monkeypatch):
    """Networks as ordering was given them, and as it gave them back."""
    seen, order = [], _base.ordered

    def watched(network, axes, data, *rest):
        found = order(network, axes, data, *rest)
        seen.append((network, found[0], data))
        return found

    monkeypatch.setattr(_base, "ordered", watched)
    return seen


def holed(X, seed=0):
    return np.where(np.random.RandomState(seed).rand(*X.shape) < 0.1, np.nan, X)


def outputs(module, x):
    with torch.no_grad():
        module, x = module.double().eval(), x.double()
        x = skae._rows.TableRows.of(x) if x.isnan().any() else x
        z = module.encode(x)
        return module.decode(module.with_condition(z, x) if hasattr(module, "with_condition") else z).numpy()


@pytest.mark.parametrize("model", MODELS, ids=str)
@pytest.mark.parametrize("missing", [False, True])
def test_the_reconstruction_stays_and_components_are_in_order(model, X, missing, ordered):
    X = holed(X) if missing else X
    model = clone(model).fit(X)
    before, after, data = ordered[0]
    expected = outputs(before, data.x.as_subclass(torch.Tensor))
    np.testing.assert_allclose(outputs(after, data.x.as_subclass(torch.Tensor)), expected, atol=4e-6 * expected.std())
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    explained, ratio = model.explained_variance_, model.explained_variance_ratio_
    assert explained.shape == ratio.shape == (model.n_components_,)
    assert explained.dtype == ratio.dtype == np.float64
    if after.code_map != "signs":
        n_parts = after.n_code_parts
        assert all((np.diff(explained[part::n_parts]) <= 1e-12).all() for part in range(n_parts))
    codes = model.transform(X)
    if isinstance(model, ROTATED[:2]):
        np.testing.assert_allclose(np.cov(codes.T), np.diag(explained), atol=2e-5 * explained[0])
    if after.code_map != "permutation" and not missing:
        columns = X[:, [1, 3, 4, 5]] if isinstance(model, skae.ConditionalVAE) else X
        shared = np.cov(codes.T, columns.T)[: model.n_components_, model.n_components_ :]
        largest = shared[np.arange(len(shared)), np.abs(shared).argmax(axis=1)]
        assert (largest >= 0).all()


def test_what_components_explain_adds_up_to_the_variance_of_the_reconstruction(X):
    for model in (
        skae.AutoEncoder(4, **QUICK),
        skae.VAE(4, init="random", **QUICK),
        skae.SparseAutoEncoder(9, **QUICK),
    ):
        X_hat = model.fit(X).inverse_transform(model.transform(X))
        assert model.explained_variance_.sum() == pytest.approx(X_hat.var(axis=0, ddof=1).sum(), rel=0.01)
        share = X_hat.var(axis=0).sum() / X.var(axis=0).sum()
        assert model.explained_variance_ratio_.sum() == pytest.approx(share, rel=0.01)


class Product(nn.Module):
    """The decoder z_1 z_2, 3 z_1."""

    def encode(self, x):
        return x

    def decode(self, z):
        return torch.stack([z[:, 0] * z[:, 1], 3 * z[:, 0]], 1)


def test_effects_of_a_known_decoder():
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    x[:, 1] += 0.5 * x[:, 0]
    rows = torch.arange(400)
    weights = torch.rand(400, generator=torch.Generator().manual_seed(1)).double()
    for data in (Data(x, rows, (Fold(rows, rows),)), Data(x, rows, (Fold(rows, rows),), weights=weights)):
        w = np.ones(400) if data.weights is None else weights.numpy()
        n = w.sum() - w.sum() / 400
        z = x.double().numpy()
        mean = np.average(z, axis=0, weights=w)
        d = z - mean
        x_hat = Product().decode(x.double()).numpy()
        deviation = x_hat - np.average(x_hat, axis=0, weights=w)
        # integrals of the derivatives z_2, 3 and z_1, 0 from the mean to z
        gradient = np.stack(
            [(mean[1] + d[:, 1] / 2) * deviation[:, 0] + 3 * deviation[:, 1], (mean[0] + d[:, 0] / 2) * deviation[:, 0]]
        )
        expected = (w * gradient) @ d / n
        effects = effects_of(Product(), data, moments_of(Product(), data))
        np.testing.assert_allclose(effects.numpy(), expected, atol=1e-5)
        assert np.trace(expected) == pytest.approx((w[:, None] * deviation**2).sum() / n, rel=1e-6)


# PCA.


def same_as_pca(model, X, pca, rtol=1e-5):
    np.testing.assert_allclose(model.transform(X), pca.transform(X), atol=1e-5 * np.abs(X).max())
    np.testing.assert_allclose(model.explained_variance_, pca.explained_variance_, rtol=rtol)
    np.testing.assert_allclose(model.explained_variance_ratio_, pca.explained_variance_ratio_, rtol=rtol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_linear_autoencoder_has_the_components_of_pca(digits, dtype):
    X = (16 * digits).astype(dtype)
    model = skae.AutoEncoder(10, max_iter=2, **LINEAR).fit(X)
    assert model.best_iter_ == 0
    same_as_pca(model, X, PCA(10, svd_solver="full").fit(X))


def test_the_fallback_has_the_components_of_pca(X):
    X = X[:25]  # too few to leave it
    model = skae.AutoEncoder(3, max_iter=2, random_state=0).fit(X)
    assert model.best_iter_ == 0
    same_as_pca(model, X, PCA(3, svd_solver="full").fit(X))


def test_sparse_rows_repeated_rows_and_a_memory_map(X, tmp_path, monkeypatch):
    X = np.where(X < 0.3, 0, X)
    expected = PCA(3, svd_solver="full").fit(X)
    same_as_pca(skae.AutoEncoder(3, max_iter=1, **LINEAR).fit(sparse.csr_array(X)), X, expected)
    weights = np.random.RandomState(0).randint(0, 4, len(X))
    repeated = PCA(3, svd_solver="full").fit(np.repeat(X, weights, axis=0))
    same_as_pca(skae.AutoEncoder(3, max_iter=1, **LINEAR).fit(X, sample_weight=weights), X, repeated)
    monkeypatch.setattr(_mapped, "LEAST_BYTES", 0)
    np.save(tmp_path / "X.npy", X)
    same_as_pca(skae.AutoEncoder(3, max_iter=1, **LINEAR).fit(np.load(tmp_path / "X.npy", mmap_mode="r")), X, expected)


def test_a_linear_autoencoder_with_random_weights_comes_to_the_components_of_pca(X):
    options = dict(init="random", early_stopping=False, batch_size=50, learning_rate_init=0.02, hidden_layer_sizes=())
    expected = PCA(2).fit_transform(X)
    for seed in (0, 1):
        codes = skae.AutoEncoder(2, max_iter=150, random_state=seed, **options).fit_transform(X)
        correlations = np.corrcoef(codes.T, expected.T)[:2, 2:]
        assert (np.diag(correlations) > 0.99).all()


def test_components_beyond_the_rank_explain_nothing(X):
    X = np.column_stack([X[:, :2], X[:, :2].sum(axis=1)])
    for init in ("pca", "random"):
        model = skae.AutoEncoder(6, init=init, max_iter=2, **LINEAR).fit(X)
        np.testing.assert_allclose(model.explained_variance_[2:], 0, atol=1e-6 * model.explained_variance_[0])
        assert np.isfinite(model.inverse_transform(model.transform(X))).all()
    constant = skae.AutoEncoder(2, **QUICK).fit(np.full((20, 3), 7.0))
    np.testing.assert_array_equal(constant.explained_variance_ratio_, 0)


# Which maps: what changes the loss is not done.


def test_a_penalty_of_the_code_is_left_as_it_is(X, ordered):
    model = skae.ContractiveAutoEncoder(4, contraction=0.5, init="random", **QUICK).fit(X)
    before, after, data = ordered[0]
    losses = [model._loss(module.float(), data.x).detach().numpy() for module in (before, after)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert np.abs(np.corrcoef(before.encode(data.x).detach().numpy().T) - np.eye(4)).max() > 0.01
    assert {*map(tuple, before.encoder.linear.weight.abs().tolist())} == {
        *map(tuple, after.encoder.linear.weight.abs().tolist())
    }
    without = skae.ContractiveAutoEncoder(4, contraction=0, init="random", **QUICK).fit(X)
    np.testing.assert_allclose(np.corrcoef(without.transform(X).T), np.eye(4), atol=1e-5)


class FirstComponent(skae.BaseAutoEncoder):
    """With a penalty that tells components apart."""

    def _loss(self, module, x):
        z = module.encode(x)
        return (x - module.decode(z)).square().sum(-1) + z[:, 1:].square().sum(-1)


def test_an_objective_that_tells_components_apart_keeps_them(X, ordered):
    FirstComponent(3, init="random", **QUICK).fit(X)
    before, after, _ = ordered[0]
    assert after is before


class Own(skae.BaseAutoEncoder):
    """With a network that knows no order."""

    init = "random"

    def _loss(self, module, x):
        return (x - module.decode(module.encode(x))).square().sum(-1)

    def _build_module(self, n_features, n_components, scale):
        module = nn.Module()
        module.encoder, module.decoder = nn.Linear(n_features, n_components), nn.Linear(n_components, n_features)
        module.encode, module.decode = module.encoder.forward, module.decoder.forward
        return module


def test_a_network_of_ones_own_stays_as_it_is_and_has_explained_variances(X, ordered):
    model = Own(3, **QUICK).fit(X)
    assert ordered[0][0] is ordered[0][1]
    X_hat = model.inverse_transform(model.transform(X))
    assert model.explained_variance_.sum() == pytest.approx(X_hat.var(axis=0, ddof=1).sum(), rel=1e-5)


# What follows a fit, and tables.


def test_after_a_fit(X):
    model = skae.AutoEncoder(4, warm_start=True, init="random", **QUICK).fit(X)
    explained, codes = model.explained_variance_, model.transform(X)
    reread = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(reread.explained_variance_, explained)
    model.set_params(learning_rate_init=1e-12, max_iter=1).fit(X)  # continues, and changes next to nothing
    np.testing.assert_allclose(model.transform(X), codes, atol=1e-4)
    np.testing.assert_allclose(model.explained_variance_, explained, rtol=1e-3)
    model.partial_fit(X)
    with pytest.raises(AttributeError, match="AutoEncoder has explained variances after fit, not after partial_fit"):
        model.explained_variance_ratio_  # noqa: B018
    assert not hasattr(skae.AutoEncoder(), "explained_variance_")


@pytest.mark.parametrize("missing", [False, True])
def test_tables_with_categories(X, missing):
    frame = pd.DataFrame(X, columns=list("abcdef"))
    frame["a"] = pd.Categorical(np.where(X[:, 0] > 0.6, "high", np.where(X[:, 0] > 0.3, "middle", "low")))
    if missing:
        frame = frame.mask(np.random.RandomState(0).rand(*frame.shape) < 0.1)
    model = skae.AutoEncoder(3, **QUICK).fit(frame)
    assert (np.diff(model.explained_variance_) <= 0).all()
    assert model.explained_variance_ratio_.sum() == pytest.approx(model.score(frame), abs=0.15)
    codes = model.transform(frame)
    np.testing.assert_allclose(np.cov(codes.T), np.diag(model.explained_variance_), atol=1e-4)
    assert skae.VAE(2, **QUICK).fit(frame).explained_variance_.shape == (2,)


def test_axes_are_computed_where_they_are_not_known(X):
    x, rows = torch.tensor(X - X.mean(axis=0), dtype=torch.float32), torch.arange(len(X))
    axes = axes_of(Product(), Data(x, rows, (Fold(rows, rows),)), 2)
    expected = PCA(2).fit(X).components_
    np.testing.assert_allclose(np.abs((axes.axes.numpy() * expected).sum(axis=1)), 1, rtol=1e-5)
