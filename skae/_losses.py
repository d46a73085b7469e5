"""Terms of objectives: tensors in, one value per row out.

Every term sums over the last axis (features or code dimensions) and never over rows, so that uneven batches, weights
of rows and the relative scale of the terms of a bound stay right. Closed forms rather than ``torch.distributions``:
a training step of a small network takes well under a millisecond, and the objects would cost as much again.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "activity_kl",
    "bernoulli_log_likelihood",
    "binary_cross_entropy",
    "fake_loss",
    "free_bits_kl",
    "gaussian_log_likelihood",
    "normal_log_density",
    "real_loss",
    "reparameterize",
    "squared_error",
    "standard_normal_kl",
    "standard_normal_log_density",
]


def squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    r"""Squared Euclidean distance :math:`\sum_j (x_j - \hat x_j)^2`."""
    return F.mse_loss(x_hat, x.expand_as(x_hat), reduction="none").sum(-1)  # one kernel backward instead of three


def binary_cross_entropy(x: Tensor, logits: Tensor) -> Tensor:
    r"""Cross-entropy :math:`-\sum_j x_j \ln p_j + (1 - x_j) \ln(1 - p_j)` with :math:`p = \sigma(logits)`, in nats."""
    return F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)


def bernoulli_log_likelihood(x: Tensor, logits: Tensor) -> Tensor:
    r"""Log-probability :math:`\ln p(x)` of independent Bernoulli variables, in nats."""
    return -binary_cross_entropy(x, logits)


def gaussian_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    r"""Log-density of :math:`N(mean, v I)` with one variance :math:`v` for all features, in nats.

    :math:`-\frac{1}{2}[d \ln(2 \pi v) + \lVert x - mean \rVert^2 / v]`
    """
    return -0.5 * (x.shape[-1] * (math.log(2 * math.pi) + log_variance) + squared_error(x, mean) / log_variance.exp())


def normal_log_density(z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    r"""Log-density of :math:`N(mean, diag(e^{log\_var}))`, in nats."""
    return -0.5 * (math.log(2 * math.pi) + log_var + (z - mean).square() / log_var.exp()).sum(-1)


def standard_normal_log_density(z: Tensor) -> Tensor:
    r"""Log-density of :math:`N(0, I)`, in nats."""
    return -0.5 * (z.shape[-1] * math.log(2 * math.pi) + z.square().sum(-1))


def standard_normal_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    r"""Divergence :math:`KL(N(mean, diag(e^{log\_var})) \Vert N(0, I))`, in nats.

    :math:`\frac{1}{2} \sum_j (\mu_j^2 + \sigma_j^2 - 1 - \ln \sigma_j^2)` (Kingma and Welling 2014, appendix B).
    """
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(-1)


def free_bits_kl(mean: Tensor, log_var: Tensor, free_bits: float) -> Tensor:
    r"""Divergence from :math:`N(0, I)` with a minimum KL per dimension of ``free_bits`` nats.

    :math:`\sum_j \max(\lambda, \frac{1}{n} \sum_i KL_{ij})` with the mean over the n rows of the batch, the same for
    each of them (Kingma et al. 2016, eq. 15).
    """
    divergence = 0.5 * (mean.square() + log_var.exp() - 1 - log_var)
    return divergence.mean(0).clamp_min(free_bits).sum().expand(len(mean))


def activity_kl(activity: Tensor, target: float) -> Tensor:
    r"""Divergence of Bernoulli variables with a target activity from those with the mean activity of the batch.

    :math:`\sum_j \rho \ln \frac{\rho}{\bar z_j} + (1 - \rho) \ln \frac{1 - \rho}{1 - \bar z_j}` in nats, the same
    for each of the rows (Ng 2011, section 3).
    """
    least = torch.finfo(activity.dtype).eps
    mean = activity.mean(0).clamp(least, 1 - least)
    divergence = target * (target / mean).log() + (1 - target) * ((1 - target) / (1 - mean)).log()
    return divergence.sum().expand(len(activity))


def real_loss(logits: Tensor) -> Tensor:
    r"""Loss :math:`-\ln \sigma(D)` of taking for real what should be, from logits D of shape (batch, 1)."""
    return F.softplus(-logits).squeeze(-1)


def fake_loss(logits: Tensor) -> Tensor:
    r"""Loss :math:`-\ln (1 - \sigma(D))` of taking for real what should not be, from logits D of shape (batch, 1)."""
    return F.softplus(logits).squeeze(-1)


def reparameterize(mean: Tensor, log_var: Tensor) -> Tensor:
    r"""Draw :math:`z = \mu + \sigma \epsilon`, :math:`\epsilon \sim N(0, I)`, differentiable in both arguments."""
    return torch.addcmul(mean, (0.5 * log_var).exp(), torch.randn_like(mean))
