"""Closed forms of linear autoencoders: what a trained one must equal exactly."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from skae import VAE, AutoEncoder, DenoisingAutoEncoder

LINEAR = dict(hidden_layer_sizes=(), random_state=0)


@pytest.fixture(scope="module")
def spectrum(digits):
    """Eigenvalues of the covariance, largest first, divided by the number of rows."""
    return np.linalg.eigvalsh(np.cov(digits.T, ddof=0))[::-1]


@pytest.fixture(scope="module")
def best_error(spectrum):
    """Mean squared error of an entry at every minimum of a linear autoencoder with 10 components (Baldi, Hornik)."""
    return spectrum[10:].sum() / 64


def error(model, X):
    return np.square(X - model.inverse_transform(model.transform(X))).mean()


def test_best_error_is_the_published_one(best_error):
    assert best_error == pytest.approx(0.01919647, abs=5e-9)


def test_linear_autoencoder_is_initialized_at_pca_and_stays(digits, best_error):
    model = AutoEncoder(10, **LINEAR).fit(digits)
    assert error(model, digits) == pytest.approx(best_error, rel=1e-6)
    assert model.n_iter_ >= 1
    pca = PCA(10, svd_solver="full").fit(digits)
    codes, expected = model.transform(digits), pca.transform(digits)
    np.testing.assert_allclose(codes * np.sign((codes * expected).sum(axis=0)), expected, atol=1e-5)


def test_linear_autoencoder_stays_at_pca_when_every_row_trains(digits, best_error):
    model = AutoEncoder(10, early_stopping=False, max_iter=5, **LINEAR).fit(digits)
    assert error(model, digits) == pytest.approx(best_error, rel=1e-6)


def test_linear_autoencoder_reaches_pca_from_random_weights(digits, best_error):
    model = AutoEncoder(10, init="random", early_stopping=False, alpha=0, max_iter=100, **LINEAR).fit(digits)
    assert best_error <= error(model, digits) < 1.01 * best_error
    decoder = model.module_.decoder.linear.weight.detach().numpy()
    axes = PCA(10, svd_solver="full").fit(digits).components_
    cosines = np.linalg.svd(np.linalg.qr(decoder)[0].T @ axes.T)[1]
    assert cosines.min() > 0.99


def ppca_log_likelihood(spectrum, n_components):
    """Mean log-likelihood of probabilistic PCA at its maximum (Tipping and Bishop 1999, eq. 8)."""
    d, noise = len(spectrum), spectrum[n_components:].mean()
    log_determinant = np.log(spectrum[:n_components]).sum() + (d - n_components) * math.log(noise)
    return -0.5 * (d * math.log(2 * math.pi) + log_determinant + d)


def test_linear_vae_is_initialized_at_probabilistic_pca(digits, spectrum):
    expected = ppca_log_likelihood(spectrum, 10)
    assert expected == pytest.approx(17.4519470, abs=5e-7)
    model = VAE(10, max_iter=5, **LINEAR).fit(digits)
    assert model.score(digits) == pytest.approx(expected, abs=1e-4)
    assert model.elbo(digits)[0].mean() == pytest.approx(expected, abs=1e-4)
    np.testing.assert_allclose(model.noise_variance_, PCA(10).fit(digits).noise_variance_, rtol=1e-5)


def test_score_samples_of_a_linear_vae_is_that_of_pca_for_any_number_of_draws(digits):
    model = VAE(10, max_iter=5, **LINEAR).fit(digits)
    exact = PCA(10).fit(digits).score_samples(digits)
    for n_draws in (1, 7, 500):
        np.testing.assert_allclose(model.score_samples(digits[:100], n_draws), exact[:100], atol=1e-3)
    few, many = (model.score_samples(digits, n_draws).mean() for n_draws in (1, 50))
    assert few == pytest.approx(many, abs=1e-5)


def test_divergence_of_each_component_at_the_optimum(digits):
    # KL_i = ln(lambda_i / v) / 2, and the decoder's columns are sqrt(lambda_i - v) u_i (Lucas et al. 2019)
    model = VAE(10, max_iter=5, **LINEAR).fit(digits)
    pca = PCA(10).fit(digits)
    divergence = 0.5 * np.log(pca.explained_variance_ / pca.noise_variance_).sum()
    assert model.elbo(digits)[2].mean() == pytest.approx(divergence, abs=5e-3)
    decoder = model.module_.decoder.linear.weight.detach().numpy() * model.scale_
    np.testing.assert_allclose(
        np.linalg.norm(decoder, axis=0), np.sqrt(pca.explained_variance_ - pca.noise_variance_), rtol=1e-4
    )
    np.testing.assert_allclose(np.abs(np.diag(pca.components_ @ decoder)), np.linalg.norm(decoder, axis=0), rtol=1e-6)


@pytest.mark.parametrize(("noise_variance", "n_active"), [(0.02, 30), (0.05, 18), (0.2, 7)])
def test_components_are_active_where_their_variance_exceeds_the_noise(digits, noise_variance, n_active):
    model = VAE(32, noise_variance=noise_variance, max_iter=5, **LINEAR).fit(digits)
    assert (model.transform(digits).var(axis=0) > 1e-4).sum() == n_active  # the others' code is constant
    assert model.noise_variance_ == pytest.approx(noise_variance, rel=1e-6)


def test_training_does_not_leave_the_optimum_of_a_linear_vae(digits, spectrum):
    # from there, a pass with a small learning rate must not find anything better
    model = VAE(10, max_iter=1, **LINEAR).fit(digits)
    model.set_params(learning_rate_init=1e-5).partial_fit(digits)
    assert model.score(digits) == pytest.approx(ppca_log_likelihood(spectrum, 10), abs=0.01)


def test_beta_is_a_change_of_noise(digits):
    # linear, fixed noise v: the optimum for beta is that of beta = 1 with noise beta v (Lucas et al. 2019)
    plain = VAE(32, noise_variance=0.05, max_iter=5, **LINEAR).fit(digits)
    beta = VAE(32, noise_variance=0.0125, beta=4, max_iter=5, **LINEAR).fit(digits)
    maps = [model.module_.decoder.linear.weight.detach() for model in (plain, beta)]
    np.testing.assert_allclose(maps[0] @ maps[0].T, maps[1] @ maps[1].T, atol=1e-6)
    np.testing.assert_allclose(np.abs(plain.transform(digits)), np.abs(beta.transform(digits)), atol=1e-5)
    assert (beta.transform(digits).var(axis=0) > 0.01).sum() == 18


def test_beta_equivalence_holds_where_training_ends(table):
    # trained from random weights: the objective itself, not only the initialization, has this optimum
    options = dict(init="random", early_stopping=False, alpha=0, max_iter=100, learning_rate_init=0.02, **LINEAR)
    # ten draws of the noise for each row, and these not quite equal, or they would be one row in an epoch
    X = np.tile(table, (10, 1)) + 1e-9 * np.random.RandomState(0).standard_normal((2000, 6))
    maps = []
    for beta, noise_variance in ((1, 0.4), (4, 0.1)):
        model = VAE(6, noise_variance=noise_variance, beta=beta, batch_size=250, **options).fit(X)
        maps.append(model.module_.decoder.linear.weight.detach().numpy() * model.scale_)
    variances, axes = np.linalg.eigh(np.cov(X.T, ddof=0))
    expected = (axes * np.clip(variances - 0.4, 0, None)) @ axes.T
    for found in maps:
        np.testing.assert_allclose(found @ found.T, expected, atol=0.15)


def test_bound_of_any_vae_does_not_fall_with_draws(table):
    model = VAE(2, max_iter=20, random_state=0).fit(table)
    bounds = [model.score_samples(table, n_draws).mean() for n_draws in (1, 32, 256, 2048)]
    assert np.diff(bounds).min() > -0.01  # the draws are few
    assert bounds[-1] > bounds[0]
    elbo, reconstruction, divergence = model.elbo(table, 2048)
    assert elbo.mean() < bounds[-1]
    np.testing.assert_allclose(elbo, reconstruction - divergence, atol=1e-12)
    assert (divergence >= 0).all()


def test_bound_is_below_the_integral_and_close_to_it(table):
    # one component: ln p(x) by quadrature over z
    model = VAE(1, max_iter=20, random_state=0).fit(table[:, :2])
    z = np.linspace(-8, 8, 4001)
    mean = model.inverse_transform(z[:, None])
    noise = model.noise_variance_
    log_prior = -0.5 * (z**2 + math.log(2 * math.pi))
    squares = np.square(table[:50, None, :2] - mean).sum(axis=-1)
    log_joint = log_prior - 0.5 * squares / noise - math.log(2 * math.pi * noise)
    exact = np.log(np.exp(log_joint).sum(axis=1) * (z[1] - z[0]))
    found = model.score_samples(table[:50, :2], 5000)
    assert np.median(np.abs(found - exact)) < 0.02
    assert (found - exact).max() < 0.2


def test_elbo_terms_against_plain_sampling(table):
    model = VAE(2, max_iter=20, random_state=0).fit(table)
    x = torch.tensor((table[:20] - model.mean_) / model.scale_)
    torch.manual_seed(0)
    with torch.no_grad():
        mean, log_var = model.module_.posterior(x)
        posterior = torch.distributions.Normal(mean, (log_var / 2).exp())
        x_hat = model.module_.decode(posterior.sample((5_000,)))
        likelihood = torch.distributions.Normal(x_hat, (model.module_.log_noise / 2).exp())
        reconstruction = likelihood.log_prob(x).sum(-1).mean(0) - 6 * math.log(model.scale_)
        prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
        divergence = torch.distributions.kl_divergence(posterior, prior).sum(-1)
    _, found, found_divergence = model.elbo(table[:20], 4096)
    np.testing.assert_allclose(found_divergence, divergence, atol=1e-10)
    np.testing.assert_allclose(found, reconstruction, atol=0.3)
    assert np.abs(found - reconstruction.numpy()).mean() < 0.1


@pytest.mark.parametrize(("noise", "level"), [("gaussian", 0.5), ("masking", 0.3)])
def test_linear_denoising_reaches_its_closed_form(noise, level):
    # Chen et al. 2012 (marginalized denoising): W = P Q^-1 for masking, S (S + t^2 I)^-1 for Gaussian noise
    rng = np.random.RandomState(0)
    X = rng.standard_normal((4000, 4)) @ np.diag([2, 1, 0.7, 0.4]) @ np.linalg.qr(rng.standard_normal((4, 4)))[0]
    model = DenoisingAutoEncoder(
        4, noise=noise, noise_level=level, alpha=0, max_iter=150, batch_size=250, learning_rate_init=0.01, **LINEAR
    ).fit(X)
    S = np.cov(X.T, ddof=0) / model.scale_**2
    if noise == "gaussian":
        expected = S @ np.linalg.inv(S + level**2 * np.eye(4))
        variances = np.linalg.eigvalsh(S)
        risk = (variances * level**2 / (variances + level**2)).sum()
        assert model.best_loss_ == pytest.approx(risk, rel=0.1)
    else:
        keep = 1 - level
        Q = S * keep**2
        np.fill_diagonal(Q, np.diag(S) * keep)
        expected = S * keep @ np.linalg.inv(Q)
    found = np.linalg.lstsq(X - X.mean(axis=0), model.inverse_transform(model.transform(X)) - X.mean(axis=0))[0].T
    assert model.best_iter_ > 0
    assert np.abs(found - expected).max() < 0.05
    assert np.abs(np.eye(4) - expected).max() > 0.2  # the initialization is not the answer


def test_noise_where_no_variance_is_discarded(table):
    # as many components as features: the model is exact for any noise below the least variance, and takes half of it
    model = VAE(6, max_iter=1, learning_rate_init=1e-12, **LINEAR).fit(table)
    assert model.noise_variance_ == pytest.approx(0.5 * PCA().fit(table).explained_variance_[-1], rel=1e-4)
