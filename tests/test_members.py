"""What each member adds: losses, noise, likelihoods, samples, the PCA fallback on held-out rows."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from skae import VAE, AutoEncoder, BaseAutoEncoder, DenoisingAutoEncoder, _base
from skae._losses import squared_error

MEMBERS = [AutoEncoder, DenoisingAutoEncoder, VAE]


def pca_r2(train, test, n_components):
    pca = PCA(n_components, svd_solver="full").fit(train)
    return r2_score(test, pca.inverse_transform(pca.transform(test)), multioutput="variance_weighted")


# The PCA fallback.


@pytest.mark.parametrize("member", [AutoEncoder, DenoisingAutoEncoder])
def test_reconstruction_of_held_out_rows_is_better_than_pca(member, digits):
    train, test = train_test_split(digits, random_state=0)
    model = member(10, max_iter=20, random_state=0).fit(train)
    assert 1 - model.score(test) < 0.75 * (1 - pca_r2(train, test, 10))
    X_hat = model.inverse_transform(model.transform(test))
    assert model.score(test) == pytest.approx(r2_score(test, X_hat, multioutput="variance_weighted"), abs=1e-12)
    np.testing.assert_allclose(model.score_samples(test), -np.square(test - X_hat).sum(axis=1), rtol=1e-9)


def test_likelihood_of_held_out_rows_is_better_than_probabilistic_pca(digits):
    train, test = train_test_split(digits, random_state=0)
    assert VAE(10, max_iter=20, random_state=0).fit(train).score(test) > PCA(10).fit(train).score(test) + 5


@pytest.mark.parametrize("member", MEMBERS)
def test_pca_is_kept_where_there_is_nothing_else_to_find(member):
    X = np.random.RandomState(0).standard_normal((60, 8)) * np.geomspace(3, 0.3, 8)
    model = member(2, max_iter=20, random_state=0).fit(X)
    assert model.best_iter_ == 0
    if member is VAE:
        assert model.score(X) == pytest.approx(PCA(2).fit(X).score(X), abs=1e-3)
    else:
        assert model.score(X) == pytest.approx(pca_r2(X, X, 2), abs=1e-6)


def test_initial_codes_are_in_the_units_of_x(table):
    X = 1000 * table + 5
    model = AutoEncoder(2, learning_rate_init=1e-12, max_iter=1, random_state=0).fit(X)
    codes = PCA(2).fit_transform(X)
    np.testing.assert_allclose(np.abs(model.transform(X)), np.abs(codes), rtol=1e-3, atol=1)


def test_weights_kept_are_the_best_on_held_out_rows(digits):
    model = AutoEncoder(2, max_iter=10, random_state=0).fit(digits)
    assert model.best_loss_ == min(model.validation_curve_)
    assert model.validation_curve_[model.best_iter_] == model.best_loss_
    assert len(model.validation_curve_) == model.n_iter_ + 1 == len(model.loss_curve_) + 1
    assert AutoEncoder(2, max_iter=2, early_stopping=False).fit(digits).validation_curve_ is None


def test_overcomplete_code_keeps_everything_from_the_initialization(table):
    model = AutoEncoder(9, max_iter=5, random_state=0).fit(table)
    assert model.score(table) > 1 - 1e-9


@pytest.mark.parametrize("member", MEMBERS)
def test_real_data_is_never_worse_than_pca(member, real_data):
    X = real_data("pendigits")[:2000]
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    train, test = X[:1500], X[1500:]
    model = member(4, max_iter=20, random_state=0).fit(train)
    reference = PCA(4).fit(train).score(test) if member is VAE else pca_r2(train, test, 4)
    assert model.score(test) > reference


# AutoEncoder: cross-entropy.


def test_cross_entropy_is_no_worse_than_pca_and_gives_probabilities(digits):
    train, test = train_test_split(digits, random_state=0)
    model = AutoEncoder(4, loss="binary_cross_entropy", max_iter=20, random_state=0).fit(train)
    X_hat = model.inverse_transform(model.transform(test))
    assert X_hat.min() >= 0
    assert X_hat.max() <= 1
    assert model.score(test) > pca_r2(train, test, 4)
    initial = AutoEncoder(
        4, loss="binary_cross_entropy", learning_rate_init=1e-12, max_iter=1, early_stopping=False
    ).fit(train)
    assert initial.score(test) >= pca_r2(train, test, 4) - 1e-6


@pytest.mark.parametrize(
    "model", [AutoEncoder(loss="binary_cross_entropy"), VAE(likelihood="bernoulli")], ids=lambda m: type(m).__name__
)
def test_probabilities_need_values_in_the_unit_interval(model, table, digits):
    with pytest.raises(ValueError, match=r"X must be in \[0, 1\] where .*got values from -3.5.* to 4"):
        model.fit(table)
    model.set_params(max_iter=1).fit(digits)
    with pytest.raises(ValueError, match=r"X must be in \[0, 1\]"):
        model.transform(2 * digits)  # not scaled as in fit
    np.testing.assert_array_equal(model.transform(1.5 * digits), model.transform((1.5 * digits).clip(0, 1)))


@pytest.mark.parametrize(
    "model", [AutoEncoder(loss="binary_cross_entropy"), VAE(likelihood="bernoulli")], ids=lambda m: type(m).__name__
)
def test_probabilities_after_min_max_scaler(model):
    X = load_breast_cancer().data
    assert MinMaxScaler().fit_transform(X).max() > 1  # by rounding
    pipeline = make_pipeline(MinMaxScaler(), clone(model).set_params(max_iter=2, random_state=0))
    assert np.isfinite(cross_val_score(pipeline, X, cv=3)).all()
    fitted = pipeline.fit(X)[-1]
    assert fitted.transform(np.full((1, 30), 1 + 1e-15)) == pytest.approx(fitted.transform(np.ones((1, 30))), abs=0)
    in_float32 = MinMaxScaler().fit_transform(X.astype(np.float32))
    assert np.isfinite(clone(model).set_params(max_iter=2).fit(in_float32).transform(in_float32)).all()


# DenoisingAutoEncoder: noise.


def corrupted(noise, level, x):
    torch.manual_seed(0)
    return DenoisingAutoEncoder(noise=noise, noise_level=level)._corrupt(x)


@pytest.fixture
def batch():
    return torch.randn(4000, 5, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 6)


def test_gaussian_noise(batch):
    noise = corrupted("gaussian", 0.3, batch) - batch
    np.testing.assert_allclose(noise.std(0), 0.3, rtol=0.05)
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.02)


@pytest.mark.parametrize("noise", ["masking", "salt_and_pepper", "swap"])
def test_entries_are_replaced_with_the_given_probability(batch, noise):
    noisy = corrupted(noise, 0.3, batch)
    changed = noisy != batch
    np.testing.assert_allclose(changed.float().mean(0), 0.3, atol=0.03)
    if noise == "masking":
        assert (noisy[changed] == 0).all()
    elif noise == "salt_and_pepper":
        low, high = (noisy == batch.amin(0)) & changed, (noisy == batch.amax(0)) & changed
        assert (low | high)[changed].all()
        assert float(low.sum() / changed.sum()) == pytest.approx(0.5, abs=0.03)
    else:
        for column in range(5):  # values of the same column, from other rows
            assert set(noisy[:, column].tolist()) <= set(batch[:, column].tolist())
        assert not changed.any(dim=1).all()
    assert torch.equal(corrupted(noise, 0.0, batch), batch)


def test_swap_with_certainty_takes_another_row(batch):
    assert (corrupted("swap", 1.0, batch[:2]) == batch[:2].flip(0)).all()
    assert torch.equal(corrupted("swap", 1.0, batch[:1]), batch[:1])


def test_noise_is_fresh_for_every_batch(batch):
    model = DenoisingAutoEncoder()
    assert not torch.equal(model._corrupt(batch), model._corrupt(batch))


def test_without_noise_the_loss_is_that_of_autoencoder(batch):
    module = torch.nn.Module()
    module.encode = module.decode = lambda x: 0.5 * x
    plain, denoising = AutoEncoder()._loss(module, batch), DenoisingAutoEncoder(noise_level=0)._loss(module, batch)
    assert torch.equal(plain, denoising)
    torch.testing.assert_close(plain, squared_error(batch, 0.25 * batch))


def test_noise_level_of_a_probability(table):
    with pytest.raises(ValueError, match="noise_level must be at most 1 for noise='swap'"):
        DenoisingAutoEncoder(noise="swap", noise_level=1.5).fit(table)
    DenoisingAutoEncoder(noise_level=1.5, max_iter=1).fit(table)


def test_denoises_better_than_pca(digits):
    train, test = train_test_split(digits, random_state=0)
    model = DenoisingAutoEncoder(16, noise="masking", noise_level=0.3, max_iter=30, random_state=0).fit(train)
    rng = np.random.RandomState(0)
    noisy = np.where(rng.random_sample(test.shape) < 0.3, train.mean(axis=0), test)
    pca = PCA(16).fit(train)
    by_pca = np.square(test - pca.inverse_transform(pca.transform(noisy))).mean()
    assert np.square(test - model.inverse_transform(model.transform(noisy))).mean() < 0.7 * by_pca


# VAE.


def test_score_is_in_the_units_of_x(table):
    narrow, wide = (VAE(2, max_iter=5, random_state=0).fit(scale * table) for scale in (1.0, 10.0))
    difference = narrow.score(table) - wide.score(10 * table)
    assert difference == pytest.approx(6 * np.log(10), abs=0.05)
    assert wide.noise_variance_ == pytest.approx(100 * narrow.noise_variance_, rel=0.05)


def test_samples_resemble_the_data():
    rng = np.random.RandomState(0)
    t = rng.standard_normal((2000, 2))
    X = np.column_stack([t, t**2 / 2, t[:, 0] * t[:, 1] / 2]) + 0.05 * rng.standard_normal((2000, 5))
    model = VAE(2, max_iter=40, random_state=0).fit(X)
    drawn = model.sample(20_000, random_state=0)
    np.testing.assert_allclose(drawn.mean(axis=0), X.mean(axis=0), atol=0.15)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(X.T), atol=0.3)
    np.testing.assert_array_equal(model.sample(3, random_state=1), model.sample(3, random_state=1))


def test_bernoulli_samples_are_bits(digits):
    model = VAE(4, likelihood="bernoulli", max_iter=5, random_state=0).fit(digits)
    assert set(np.unique(model.sample(50, random_state=0))) == {0, 1}
    assert model.score_samples(digits[:10]).max() < 0
    assert not hasattr(model, "noise_variance_")


def test_loss_that_is_not_finite_at_the_initialization_is_an_error(table):
    model = VAE(noise_variance=1e-45)
    with pytest.raises(ValueError, match="not finite at the initialization"):
        model.fit(table)
    assert not hasattr(model, "module_")


class UndefinedAtFirst(AutoEncoder):
    def _loss(self, module, x):
        loss = super()._loss(module, x)
        return loss if module.decoder.linear.bias.detach().abs().sum() != self.initial_bias else loss * torch.nan


def test_loss_that_is_undefined_at_the_initialization_only_is_an_error_too(table):
    UndefinedAtFirst.initial_bias = 0.0
    X = np.concatenate([table, -table])  # the bias of PCA is the mean, zero
    with pytest.raises(ValueError, match="not finite at the initialization"):
        UndefinedAtFirst(2, hidden_layer_sizes=(), max_iter=3, early_stopping=False, random_state=0).fit(X)


@pytest.mark.parametrize("bad", [0, 1.5, "3"])
def test_counts_of_draws_are_checked(table, bad):
    model = VAE(max_iter=1, random_state=0).fit(table)
    with pytest.raises(ValueError, match="n_samples must be an integer of at least 1"):
        model.sample(bad)
    with pytest.raises(ValueError, match="n_draws must be an integer of at least 1"):
        model.score_samples(table, n_draws=bad)


def test_large_beta_makes_the_posterior_the_prior(table):
    with pytest.warns(ConvergenceWarning, match="collapsed to the prior.*lower beta or noise_variance"):
        model = VAE(2, beta=1000, max_iter=30, random_state=0).fit(table)
    assert not model.active_units_.any()
    assert np.abs(model.transform(table)).max() < 0.03
    assert model.elbo(table)[2].max() < 0.01


def test_transform_is_the_posterior_mean(table):
    model = VAE(2, max_iter=3, random_state=0).fit(table)
    mean, _ = model.module_.posterior(torch.tensor((table - model.mean_) / model.scale_))
    np.testing.assert_allclose(model.transform(table), mean.detach(), atol=1e-12)


# A user's own member.


@pytest.mark.parametrize("beta", [0, 1e-3])
def test_without_a_divergence_it_still_trains(table, beta):
    assert np.isfinite(VAE(2, beta=beta, max_iter=2, random_state=0).fit(table).score(table))


def test_results_of_a_fitted_model_do_not_change_with_its_parameters(digits):
    model = VAE(2, max_iter=2, random_state=0).fit(digits)
    expected, noise_variance = model.score(digits[:50]), model.noise_variance_
    model.set_params(likelihood="bernoulli")
    assert (model.score(digits[:50]), model.noise_variance_) == (expected, noise_variance)


class Cosh(BaseAutoEncoder):
    def _loss(self, module, x):
        return torch.log(torch.cosh(x - module.decode(module.encode(x)))).sum(-1)


def test_a_member_of_ones_own_needs_a_loss_only(table):
    model = Cosh(3, max_iter=10, random_state=0).fit(table)
    assert model.score(table) > pca_r2(table, table, 3) - 0.05
    with pytest.raises(TypeError, match="abstract"):
        BaseAutoEncoder()


class Summed(BaseAutoEncoder):
    def _loss(self, module, x):
        return squared_error(x, module.decode(module.encode(x))).sum()


class Alternating(AutoEncoder):
    """Two optimizers that step in turn, and nothing else said."""

    def _optimizers(self, module):
        return 2 * super()._optimizers(module)


def test_alternating_optimizers_alone_decide_that_the_last_epoch_is_kept():
    X = np.random.RandomState(0).standard_normal((60, 8))
    assert AutoEncoder(2, max_iter=5, random_state=0).fit(X).best_iter_ == 0
    model = Alternating(2, max_iter=5, random_state=0).fit(X)
    assert model.best_iter_ == model.n_iter_ == 5


class TwoLayers(BaseAutoEncoder):
    def _loss(self, module, x):
        return squared_error(x, module.decode(module.encode(x)))

    def _build_module(self, n_features, n_components, scale):
        module = torch.nn.Module()
        module.first, module.second = (
            torch.nn.Linear(n_features, n_components),
            torch.nn.Linear(n_components, n_features),
        )
        module.encode, module.decode = module.first.forward, module.second.forward
        return module


def test_a_loss_of_another_shape_is_an_error(table):
    with pytest.raises(ValueError, match=r"one value for each row, shape \(50,\), got an array of shape \(\)"):
        Summed(max_iter=1).fit(table)


def test_a_network_of_ones_own(table):
    with pytest.raises(
        ValueError, match="init='pca' needs a network with the method initialize, which Module does not have"
    ):
        TwoLayers().fit(table)
    model = TwoLayers(3, init="random", random_state=0).fit(table)
    assert model.score(table) > 0.5


@pytest.mark.parametrize("n_rows", [3, 5, 8, 20, 29])
def test_pca_is_kept_where_rows_are_too_few_to_tell(table, n_rows):
    model = AutoEncoder(1, max_iter=5, random_state=0).fit(table[:n_rows])
    assert model.best_iter_ == 0
    pca = PCA(1).fit(table[:n_rows])
    np.testing.assert_allclose(np.abs(model.transform(table)), np.abs(pca.transform(table)), atol=1e-4)


# Rows that come in parts.


STREAMS = {"ordinary": [], "one row": [slice(0, 1)], "two rows": [slice(0, 2)]}


@pytest.mark.parametrize("first", [*STREAMS, "small"])
def test_partial_fit_recovers_from_a_first_batch_like_no_other(first, table, monkeypatch):
    monkeypatch.setattr(_base, "FIRST_PASSES", 2)
    rng = np.random.RandomState(0)
    X = np.tile(table, (15, 1)) + 0.01 * rng.standard_normal((3000, 6))
    before = [1e-3 * X[:100]] if first == "small" else [X[rows] for rows in STREAMS[first]]
    models = []
    for start in (before, []):
        pair = AutoEncoder(2, random_state=0), VAE(2, random_state=0)
        for model in pair:
            for batch in [*start, *np.array_split(X, 30)]:
                model.partial_fit(batch)
        models.append(pair)
    (auto, vae), (usual_auto, usual_vae) = models
    assert auto.score(X) > usual_auto.score(X) - 0.08
    assert vae.score(X) > usual_vae.score(X) - 0.5


def test_first_rows_are_kept_until_there_are_enough(table, monkeypatch):
    monkeypatch.setattr(_base, "FIRST_PASSES", 4)
    model = AutoEncoder(2, random_state=0)
    for part in np.array_split(np.tile(table, (6, 1)), 12):  # of 100 rows
        model.partial_fit(part)
        assert (model._first_rows_ is None) == (model.n_samples_ >= 1000)
    np.testing.assert_allclose(model.mean_, np.tile(table, (5, 1)).mean(axis=0))
    mean = model.mean_
    assert (model.n_iter_, len(model.loss_curve_)) == (9 + 4 + 2, 15)  # four passes over the first rows, once complete
    assert model.partial_fit(table + 0.1).mean_ is mean
    whole = AutoEncoder(2, random_state=0).partial_fit(np.tile(table, (5, 1)))
    assert whole.n_iter_ == 4
    assert AutoEncoder(2, random_state=0).partial_fit(np.tile(table, (10, 1))).n_iter_ == 2
    assert whole._first_rows_ is None
    assert AutoEncoder(2, max_iter=1, random_state=0).fit(table).partial_fit(table)._first_rows_ is None


def test_rows_of_another_scale_are_no_silent_matter(table):
    for factor in (1e3, 1e-3):
        model = AutoEncoder(2, max_iter=1, random_state=0).fit(table - table.mean(axis=0))
        with pytest.warns(UserWarning, match="times those of the rows that set mean and scale"):
            model.partial_fit(factor * (table - table.mean(axis=0)))


# Memory.


@pytest.mark.parametrize(("prior", "shape"), [("normal", (50, 20_000)), ("vamp", (100, 5))])
def test_draws_of_a_bound_pass_in_pieces(prior, shape, monkeypatch):
    X = np.random.RandomState(0).standard_normal(shape)
    model = VAE(20, prior=prior, hidden_layer_sizes=4, max_iter=1, random_state=0).fit(X)
    sizes, density = [], model.module_.prior.log_density

    def log_density(module, z):
        sizes.append(z.shape[0] * z.shape[1] * max(shape[1], 20 * model.module_.prior.n_parts))
        return density(module, z)

    monkeypatch.setattr(model.module_.prior, "log_density", log_density)
    scores = model.score_samples(X, n_draws=20)
    assert max(sizes) <= 2**21
    monkeypatch.setattr("skae._base_vae.NUMBERS_AT_ONCE", 2**30)
    np.testing.assert_allclose(model.score_samples(X, n_draws=20), scores, rtol=1e-10)


@pytest.mark.slow
def test_a_score_of_wide_rows_takes_little_memory():
    code = (
        "import resource, numpy as np, skae\n"
        "X = np.random.RandomState(0).standard_normal((50, 20_000))\n"
        "model = skae.VAE(max_iter=1, random_state=0).fit(X)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "model.score(X)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)\n"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert float(printed) < 0.5
