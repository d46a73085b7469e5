"""Terms of objectives: tensors in, one value per row out.

Every term sums over the last axis (features or code dimensions) and never over rows, so that uneven batches, weights
of rows and the relative scale of the terms of a bound stay right. Closed forms rather than ``torch.distributions``:
a training step of a small network takes well under a millisecond, and the objects would cost as much again.

Missing cells of a batch of `TableRows` are left out.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ._rows import TableRows

__all__ = [
    "activity_kl",
    "bernoulli_log_likelihood",
    "binary_cross_entropy",
    "categorical_log_likelihood",
    "coded_probabilities",
    "drawn_categories",
    "fake_loss",
    "free_bits_kl",
    "gaussian_log_likelihood",
    "info_nce",
    "normal_kl",
    "normal_log_density",
    "real_loss",
    "reparameterize",
    "with_noise",
    "squared_error",
    "standard_normal_kl",
    "standard_normal_log_density",
]

MOST_LOGIT = 40.0


def squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    r"""Squared Euclidean distance :math:`\sum_j (x_j - \hat x_j)^2`; of a table perhaps with weights of the inputs."""
    if isinstance(x, TableRows):
        errors = F.mse_loss(x_hat, torch.where(x.isnan(), x_hat.detach(), x), reduction="none")
        return errors.sum(-1) if x.weights is None else errors @ x.weights
    return F.mse_loss(x_hat, x.expand_as(x_hat), reduction="none").sum(-1)  # one kernel backward instead of three


def binary_cross_entropy(x: Tensor, logits: Tensor) -> Tensor:
    r"""Cross-entropy :math:`-\sum_j x_j \ln p_j + (1 - x_j) \ln(1 - p_j)` with :math:`p = \sigma(logits)`, in nats."""
    if isinstance(x, TableRows):
        terms = F.binary_cross_entropy_with_logits(logits, x.nan_to_num(0).expand_as(logits), reduction="none")
        return torch.where(x.isnan(), 0, terms).sum(-1)
    return F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)


def bernoulli_log_likelihood(x: Tensor, logits: Tensor) -> Tensor:
    r"""Log-probability :math:`\ln p(x)` of independent Bernoulli variables, in nats."""
    return -binary_cross_entropy(x, logits)


def gaussian_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    r"""Log-density of :math:`N(mean, v I)` with one variance :math:`v` for all features, in nats.

    :math:`-\frac{1}{2}[d \ln(2 \pi v) + \lVert x - mean \rVert^2 / v]`; with a variance for each, shape (d,), the sum
    of the terms of single features.
    """
    if log_variance.ndim == 0 and not isinstance(x, TableRows):
        constant = x.shape[-1] * (math.log(2 * math.pi) + log_variance)
        return -0.5 * (constant + squared_error(x, mean) / log_variance.exp())
    seen = ~x.isnan()
    errors = (torch.where(seen, x, mean.detach()) - mean).square()
    return -0.5 * (seen * (math.log(2 * math.pi) + log_variance) + errors / log_variance.exp()).sum(-1)


def categorical_log_likelihood(x: Tensor, logits: Tensor, members: Tensor) -> Tensor:
    r"""Log-probability :math:`\sum_c y_{x_c} - \ln \sum_k e^{y_{ck}}` of independent categories c, in nats.

    x: coded indicators, not negative for the category of a row and negative for the others, NaN where it is missing.
    members: one where an input, in the rows, is a category of a column. Logits are cut to [-40, 40], where the sums of
    all columns are finite and can be one matrix product.
    """
    y = logits.clamp(-MOST_LOGIT, MOST_LOGIT)
    chosen = (x >= 0) & (members.sum(1) > 0)
    seen = (~x.isnan()).to(y) @ (members / members.sum(0))
    return (chosen * y).sum(-1) - (seen * (y.exp() @ members).log()).sum(-1)


def category_probabilities(y: Tensor, places: Tensor) -> Tensor:
    """Probabilities of the categories of each column, (..., n_columns, most categories), zero beyond; from logits."""
    return y[..., places.clamp_min(0)].masked_fill(places < 0, -math.inf).softmax(-1)


def coded_probabilities(y: Tensor, places: Tensor, shares: Tensor) -> Tensor:
    r"""Numbers as they are, and logits of categories as :math:`(q_k - p_k) / \sqrt{p_k}` with probabilities q."""
    return _coded(y, category_probabilities(y, places), places, shares)


def drawn_categories(x: Tensor, y: Tensor, uniform: Tensor, places: Tensor, shares: Tensor) -> Tensor:
    """Numbers as x has them, and categories drawn from their logits y, coded as in `coded_probabilities`."""
    cumulative = category_probabilities(y, places).cumsum(-1)
    chosen = (cumulative < uniform[..., places[:, 0]][..., None]).sum(-1, keepdim=True)
    chosen = torch.minimum(chosen, (places >= 0).sum(-1, keepdim=True) - 1)
    return _coded(x, (torch.arange(places.shape[1]).to(chosen) == chosen).to(x), places, shares)


def _coded(x: Tensor, indicators: Tensor, places: Tensor, shares: Tensor) -> Tensor:
    which, rank = (places >= 0).nonzero(as_tuple=True)
    inputs, coded = places[which, rank], x.clone()
    p = shares[inputs]
    coded[..., inputs] = (indicators[..., which, rank] - p) / p.sqrt()
    return coded


def normal_log_density(z: Tensor, mean: Tensor, log_var: Tensor, factor: Tensor | None = None) -> Tensor:
    r"""Log-density of :math:`N(mean, diag(e^{log\_var}))`, in nats.

    factor: L, lower triangular, (..., n, n); the covariance is then :math:`L^{-T} diag(e^{log\_var}) L^{-1}`.
    """
    if factor is None:
        return -0.5 * (math.log(2 * math.pi) + log_var + (z - mean).square() / log_var.exp()).sum(-1)
    deviations = _per_row(torch.matmul, factor.mT, z - mean)
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    return normal_log_density(deviations, torch.zeros_like(mean), log_var) + diagonal.log().sum(-1)


def standard_normal_log_density(z: Tensor) -> Tensor:
    r"""Log-density of :math:`N(0, I)`, in nats."""
    return -0.5 * (z.shape[-1] * math.log(2 * math.pi) + z.square().sum(-1))


def standard_normal_kl(mean: Tensor, log_var: Tensor, factor: Tensor | None = None) -> Tensor:
    r"""Divergence :math:`KL(N(mean, diag(e^{log\_var})) \Vert N(0, I))`, in nats.

    :math:`\frac{1}{2} \sum_j (\mu_j^2 + \sigma_j^2 - 1 - \ln \sigma_j^2)` (Kingma and Welling 2014, appendix B).
    factor: that of a covariance as for `normal_log_density`.
    """
    if factor is None:
        return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(-1)
    variances = marginal_variances(log_var, factor)
    log_determinant = log_var.sum(-1) - 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * ((mean.square() + variances - 1).sum(-1) - log_determinant)


def normal_kl(mean: Tensor, log_var: Tensor, other_mean: Tensor, other_log_var: Tensor) -> Tensor:
    r"""Divergence :math:`KL(N(mean, diag(e^{log\_var})) \Vert N(other\_mean, diag(e^{other\_log\_var})))`, in nats."""
    return standard_normal_kl((mean - other_mean) / (0.5 * other_log_var).exp(), log_var - other_log_var)


def marginal_variances(log_var: Tensor, factor: Tensor) -> Tensor:
    """Diagonal of the covariance of which a factor is given."""
    inverse = torch.linalg.solve_triangular(factor, torch.eye(factor.shape[-1]).to(factor), upper=False)
    return (inverse.square() * log_var.exp()[..., None]).sum(-2)


def free_bits_kl(mean: Tensor, log_var: Tensor, free_bits: float, factor: Tensor | None = None) -> Tensor:
    r"""Divergence from :math:`N(0, I)` with a minimum KL per dimension of ``free_bits`` nats.

    :math:`\sum_j \max(\lambda, \frac{1}{n} \sum_i KL_{ij})` with the mean over the n rows of the batch, the same for
    each of them (Kingma et al. 2016, eq. 15). factor: as in `standard_normal_kl`; the KL of a dimension is then that of
    its marginal distribution.
    """
    if factor is not None:
        log_var = marginal_variances(log_var, factor).log()
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


def info_nce(z: Tensor, z_near: Tensor) -> Tensor:
    r"""Cross-entropy of telling which of the rows of a batch is near each, by a Cauchy kernel of the codes, in nats.

    :math:`-\ln \frac{q_{ii}}{\sum_j q_{ij}}` with :math:`q_{ij} = 1 / (1 + \lVert z_i - z'_j \rVert^2)`, where z' are
    the codes of rows near those of z (InfoNC-t-SNE, Damrich et al. 2023, with the other rows of the batch as noise).
    """
    squares = z.square().sum(-1)[:, None] + z_near.square().sum(-1) - 2 * z @ z_near.mT
    log_kernel = -torch.log1p(squares.clamp_min(0))
    return log_kernel.logsumexp(-1) - log_kernel.diagonal()


def real_loss(logits: Tensor) -> Tensor:
    r"""Loss :math:`-\ln \sigma(D)` of taking for real what should be, from logits D of shape (batch, 1)."""
    return F.softplus(-logits).squeeze(-1)


def fake_loss(logits: Tensor) -> Tensor:
    r"""Loss :math:`-\ln (1 - \sigma(D))` of taking for real what should not be, from logits D of shape (batch, 1)."""
    return F.softplus(logits).squeeze(-1)


def reparameterize(mean: Tensor, log_var: Tensor, factor: Tensor | None = None) -> Tensor:
    r"""Draw :math:`z = \mu + \sigma \epsilon`, :math:`\epsilon \sim N(0, I)`, differentiable in both arguments.

    factor: L of `normal_log_density`; the draw is then :math:`\mu + L^{-T} \sigma \epsilon`.
    """
    noise = torch.randn_like(mean)
    if factor is None:
        return torch.addcmul(mean, (0.5 * log_var).exp(), noise)  # one kernel
    return with_noise(noise, mean, log_var, factor)


def with_noise(noise: Tensor, mean: Tensor, log_var: Tensor, factor: Tensor | None = None) -> Tensor:
    """The draws for given standard normal noise, (..., batch, n_components)."""
    if factor is None:
        return mean + (0.5 * log_var).exp() * noise
    solve = partial(torch.linalg.solve_triangular, upper=True)
    return mean + _per_row(solve, factor.mT, (0.5 * log_var).exp() * noise)


def _per_row(function: Callable[[Tensor, Tensor], Tensor], matrices: Tensor, vectors: Tensor) -> Tensor:
    """A function of the matrix of each row, (batch, k, k), and all its vectors, (..., batch, k), at once."""
    columns = vectors.reshape(-1, *vectors.shape[-2:]).permute(1, 2, 0)
    return function(matrices, columns).permute(2, 0, 1).reshape(vectors.shape)
