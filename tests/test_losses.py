"""Every term against an independent oracle, in float64."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Independent, MultivariateNormal, Normal, kl_divergence
from torch.nn.functional import one_hot

from skae import _losses as losses
from skae._rows import TableRows


@pytest.fixture
def x():
    return torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def y():
    return torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_squared_error(x, y):
    expected = torch.cdist(x, y).diagonal() ** 2
    torch.testing.assert_close(losses.squared_error(x, y), expected)


@pytest.mark.parametrize("log_variance", [-3.0, 0.0, 1.5])
def test_gaussian_log_likelihood(x, y, log_variance):
    oracle = Independent(Normal(y, math.exp(log_variance / 2)), 1).log_prob(x)
    log_variance = torch.tensor(log_variance, dtype=torch.float64)
    torch.testing.assert_close(losses.gaussian_log_likelihood(x, y, log_variance), oracle)


def test_bernoulli_terms(x, y):
    bits = (x > 0).double()
    oracle = Independent(Bernoulli(logits=y), 1).log_prob(bits)
    torch.testing.assert_close(losses.bernoulli_log_likelihood(bits, y), oracle)
    torch.testing.assert_close(losses.binary_cross_entropy(bits, y), -oracle)


def test_cross_entropy_of_grey_values_is_the_mixture_of_its_bits(y):
    grey = torch.rand(7, 5, dtype=torch.float64)
    p = y.sigmoid()
    expected = -(grey * p.log() + (1 - grey) * (1 - p).log()).sum(-1)
    torch.testing.assert_close(losses.binary_cross_entropy(grey, y), expected)


def test_normal_log_density(x, y):
    log_var = 0.3 * x
    oracle = Independent(Normal(y, (log_var / 2).exp()), 1).log_prob(x)
    torch.testing.assert_close(losses.normal_log_density(x, y, log_var), oracle)


def test_standard_normal_kl(x, y):
    oracle = kl_divergence(Independent(Normal(x, (y / 2).exp()), 1), Independent(Normal(0 * x, 1 + 0 * x), 1))
    torch.testing.assert_close(losses.standard_normal_kl(x, y), oracle)


def test_reparameterize_has_the_moments_and_the_gradient():
    torch.manual_seed(0)
    mean = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    log_var = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
    z = losses.reparameterize(mean.expand(200_000, 2), log_var.expand(200_000, 2))
    torch.testing.assert_close(z.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(z.var(0), log_var.exp(), atol=0.02, rtol=0)
    # E z^2 = mean^2 + var: its gradients are 2 mean and var
    (z.square().mean(0).sum()).backward()
    torch.testing.assert_close(mean.grad, 2 * mean.detach(), atol=0.05, rtol=0)
    torch.testing.assert_close(log_var.grad, log_var.detach().exp(), atol=0.05, rtol=0)


def test_standard_normal_log_density(x):
    oracle = Independent(Normal(0 * x, 1 + 0 * x), 1).log_prob(x)
    torch.testing.assert_close(losses.standard_normal_log_density(x), oracle)


def test_activity_kl(x):
    activity = x.sigmoid()
    oracle = kl_divergence(Bernoulli(torch.full((5,), 0.05).double()), Bernoulli(activity.mean(0))).sum()
    torch.testing.assert_close(losses.activity_kl(activity, 0.05), oracle.expand(7), rtol=1e-6, atol=0)
    at_target = torch.full((7, 5), 0.05, dtype=torch.float64)
    torch.testing.assert_close(losses.activity_kl(at_target, 0.05), torch.zeros(7).double())
    assert losses.activity_kl(torch.zeros(7, 5), 0.05).isfinite().all()
    assert torch.autograd.gradcheck(lambda a: losses.activity_kl(a, 0.05), activity.requires_grad_())


@pytest.mark.parametrize("free_bits", [0.0, 0.3, 50.0])
def test_free_bits_kl(x, y, free_bits):
    posterior, prior = Normal(x, (y / 2).exp()), Normal(0 * x, 1 + 0 * x)
    per_component = kl_divergence(posterior, prior).mean(0)
    expected = sum(max(float(value), free_bits) for value in per_component)
    torch.testing.assert_close(losses.free_bits_kl(x, y, free_bits), torch.full((7,), expected).double())
    if free_bits == 0:
        torch.testing.assert_close(losses.free_bits_kl(x, y, 0).mean(), losses.standard_normal_kl(x, y).mean())


def test_losses_of_the_adversary(x):
    logits = 5 * x[:, :1]
    one, zero = torch.ones_like(logits), torch.zeros_like(logits)
    oracle = torch.nn.BCEWithLogitsLoss(reduction="none")
    torch.testing.assert_close(losses.real_loss(logits), oracle(logits, one)[:, 0])
    torch.testing.assert_close(losses.fake_loss(logits), oracle(logits, zero)[:, 0])


@pytest.mark.parametrize("name", ["squared_error", "binary_cross_entropy", "bernoulli_log_likelihood"])
def test_terms_keep_leading_axes_and_differentiate(name, x, y):
    term = getattr(losses, name)
    x = x.sigmoid()
    assert term(x, y).shape == (7,)
    assert term(x[None], y.expand(3, 7, 5)).shape == (3, 7)
    assert torch.autograd.gradcheck(lambda y: term(x, y), y.clone().requires_grad_())


@pytest.fixture
def factor():
    torch.manual_seed(1)
    root = torch.randn(7, 5, 5, dtype=torch.float64)
    return torch.linalg.cholesky(torch.eye(5, dtype=torch.float64) + root @ root.mT)


def correlated(mean, log_var, factor):
    """The normal distribution of which a factor is given, by torch."""
    root = torch.linalg.solve_triangular(factor.mT, torch.eye(5, dtype=torch.float64).expand_as(factor), upper=True)
    return MultivariateNormal(mean, root @ torch.diag_embed(log_var.exp()) @ root.mT)


def test_correlated_normal(x, y, factor):
    log_var = 0.3 * y
    oracle = correlated(x, log_var, factor)
    z = x + torch.randn(3, 7, 5, dtype=torch.float64)
    torch.testing.assert_close(losses.normal_log_density(z, x, log_var, factor), oracle.log_prob(z))
    prior = MultivariateNormal(torch.zeros(5).double(), torch.eye(5).double())
    torch.testing.assert_close(losses.standard_normal_kl(x, log_var, factor), kl_divergence(oracle, prior))
    torch.testing.assert_close(
        losses.marginal_variances(log_var, factor), oracle.covariance_matrix.diagonal(dim1=-2, dim2=-1)
    )
    draws = losses.with_noise(torch.randn(40_000, 7, 5, dtype=torch.float64), x, log_var, factor)
    torch.testing.assert_close(draws.mean(0), x, atol=0.05, rtol=0)
    torch.testing.assert_close(draws[:, 2].T.cov(), oracle.covariance_matrix[2], atol=0.05, rtol=0.05)
    alone = losses.with_noise(torch.zeros(7, 5, dtype=torch.float64), x, log_var, factor)
    torch.testing.assert_close(alone, x)
    assert losses.free_bits_kl(x, log_var, 50.0, factor).tolist() == [250.0] * 7


def test_missing_cells_are_left_out(x, y):
    missing = torch.zeros(7, 5, dtype=torch.bool)
    missing[0, :2], missing[3] = True, True
    holed = TableRows.of(torch.where(missing, torch.nan, x))
    x_hat = y.clone().requires_grad_()
    found = losses.squared_error(holed, x_hat)
    torch.testing.assert_close(found, torch.where(missing, 0, (x - y).square()).sum(-1))
    found.sum().backward()
    torch.testing.assert_close(x_hat.grad, torch.where(missing, 0, 2 * (y - x)))
    cross_entropy = losses.binary_cross_entropy(TableRows.of(torch.where(missing, torch.nan, x.sigmoid())), y)
    terms = -(x.sigmoid() * y.sigmoid().log() + (1 - x.sigmoid()) * (1 - y.sigmoid()).log())
    torch.testing.assert_close(cross_entropy, torch.where(missing, 0, terms).sum(-1))
    log_variance = torch.linspace(-1, 1, 5).double()
    for value in (log_variance, log_variance[2]):
        density = Normal(y, (0.5 * value).exp()).log_prob(x)
        torch.testing.assert_close(
            losses.gaussian_log_likelihood(holed, y, value), torch.where(missing, 0, density).sum(-1)
        )
    weights = torch.rand(5).double()
    weighted = losses.squared_error(TableRows.of(x.clone(), weights), y)
    torch.testing.assert_close(weighted, (weights * (x - y).square()).sum(-1))


def test_categories():
    torch.manual_seed(0)
    places, members = torch.tensor([[1, 2, 3], [4, 5, -1]]), torch.zeros(6, 2).double()
    members[1:4, 0], members[4:, 1] = 1, 1
    shares = torch.tensor([1, 0.2, 0.3, 0.5, 0.6, 0.4]).double()
    logits, codes = torch.randn(4, 6).double(), torch.tensor([[0, 1], [2, 0], [1, 1], [2, 1]])
    indicators = torch.cat([torch.zeros(4, 1), one_hot(codes[:, 0], 3), one_hot(codes[:, 1], 2)], 1)
    x = (indicators - shares) / shares.sqrt()
    first, second = Categorical(logits=logits[:, 1:4]), Categorical(logits=logits[:, 4:])
    found = losses.categorical_log_likelihood(x, logits, members)
    torch.testing.assert_close(found, first.log_prob(codes[:, 0]) + second.log_prob(codes[:, 1]))
    x[0, 1:4] = torch.nan
    found = losses.categorical_log_likelihood(x, logits, members)
    torch.testing.assert_close(found[0], second.log_prob(codes[:, 1])[0])
    coded = losses.coded_probabilities(logits, places, shares)
    torch.testing.assert_close(coded[:, 0], logits[:, 0])
    torch.testing.assert_close(coded[:, 1:4] * shares[1:4].sqrt() + shares[1:4], first.probs)
    uniform = torch.rand(20_000, 4, 6).double()
    drawn = losses.drawn_categories(logits.expand(20_000, 4, 6), logits, uniform, places, shares)
    frequencies = (drawn[..., 1:4] * shares[1:4].sqrt() + shares[1:4]).mean(0)
    torch.testing.assert_close(frequencies, first.probs, atol=0.015, rtol=0)
