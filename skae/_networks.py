"""Modules with ``encode`` and ``decode``: a linear map plus a multilayer perceptron on either side of the code.

The linear maps carry the PCA fallback: initialized at the principal axes, with the perceptrons' output layers at zero,
the module *is* PCA (or probabilistic PCA), and training continues from there.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ._rows import SparseRows, training_rows_at_once

__all__ = [
    "ACTIVATIONS",
    "AutoEncoderModule",
    "LinearPlusPerceptron",
    "Network",
    "PrincipalAxes",
    "VariationalModule",
    "perceptron",
    "principal_axes",
]

ACTIVATIONS = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}

# Probabilities are initialized this far from 0 and 1, so that their logits and the gradients of these are finite.
MARGIN = 0.01
# Smallest noise variance of a Gaussian decoder, as a share of the mean variance of a feature. The density of data on a
# linear subspace has no maximum; float32 cannot tell residuals below this from zero.
LEAST_NOISE = 1e-6
# Up to this many rows or features, whichever are fewer, principal axes are exact; beyond, a randomized SVD finds them.
EXACT_SIZE = 3000
# Sparse rows with more features than that are made dense for their principal axes up to so many numbers, 256 MB.
MOST_NUMBERS = 2**25


class PrincipalAxes(NamedTuple):
    """Mean (n_features,), orthonormal axes (n_axes, n_features), variances along them (n_axes,).

    total is the sum of the variances of all axes, n_all the number of rows or of features, whichever is less. As in
    scikit-learn's PCA, variances are divided by the number of rows less one.
    """

    mean: Tensor
    axes: Tensor
    variances: Tensor
    total: float
    n_all: int

    def first(self, n_components: int) -> "PrincipalAxes":
        """The leading axes, in float32 as networks take them; beyond the rank of the data, zeros."""
        axes = self.mean.new_zeros(n_components, len(self.mean))
        variances = self.mean.new_zeros(n_components)
        n_axes = min(n_components, len(self.variances))
        axes[:n_axes], variances[:n_axes] = self.axes[:n_axes], self.variances[:n_axes]
        return self._replace(mean=self.mean.float(), axes=axes.float(), variances=variances.float())


@torch.no_grad()
def principal_axes(
    x: Tensor | SparseRows, n_axes: int, rows: Tensor | None = None, weights: Tensor | None = None
) -> PrincipalAxes:
    """Principal axes of the rows of x, or of some of them; at least n_axes where there are so many, in float64.

    weights: how much each row of x counts, shape (n_samples,), float64; whole numbers are numbers of copies.

    Exact by way of the covariance of the features, or of the products of the rows where these are fewer, summed in
    pieces so that x is never copied whole. Directions whose variance is rounding error are left out.
    """
    exact = x.device if x.device.type != "mps" else torch.device("cpu")  # mps has no float64
    chosen = torch.arange(len(x), device=x.device) if rows is None else rows
    n_rows, n_features = len(chosen), x.shape[1]
    counts = torch.ones(n_rows, dtype=torch.float64) if weights is None else weights[chosen.cpu()]
    n_counted, n_all = float(counts.sum()), min(n_rows, n_features)
    if isinstance(x, SparseRows) and n_features > EXACT_SIZE and n_rows * n_features > MOST_NUMBERS:
        mean, axes, squares, total = (
            torch.as_tensor(a, device=exact) for a in x.principal_axes(n_axes, chosen, counts)
        )
        return _significant(mean, axes, squares, float(total), n_counted, n_rows, n_all)
    size = training_rows_at_once(x)
    pieces = [
        (part, root[:, None].to(exact))
        for part, root in zip(chosen.split(size), counts.sqrt().split(size), strict=True)
    ]
    mean = sum((root.square() * x[part].to(exact).double()).sum(0) for part, root in pieces) / n_counted
    deviations = (root * (x[part].to(exact).double() - mean) for part, root in pieces)
    if n_all > EXACT_SIZE:
        total = float(sum(part.square().sum() for part in deviations))
        dense, centre = (x if rows is None else x[rows]), mean.to(x).expand(1, -1)
        if weights is not None:
            dense, centre = counts.sqrt()[:, None].to(dense) * (dense - centre), None
        _, singular, axes = torch.svd_lowrank(dense, q=n_axes + 10, niter=7, M=centre)
        squares, axes = singular.to(exact).double().square(), axes.T.to(exact).double()
    elif n_features <= n_rows:
        squares, axes = _eigh(sum(part.T @ part for part in deviations))
        squares, axes, total = squares.flip(0), axes.T.flip(0), float(squares.sum())
    else:
        whole = torch.cat(list(deviations))
        squares, vectors = _eigh(whole @ whole.T)
        squares, total = squares.flip(0), float(squares.sum())
        axes = vectors.T.flip(0) @ whole / squares.clamp_min(torch.finfo(torch.float64).tiny).sqrt()[:, None]
    return _significant(mean, axes, squares, total, n_counted, n_rows, n_all)


def _significant(
    mean: Tensor, axes: Tensor, squares: Tensor, total: float, n_counted: float, n_rows: int, n_all: int
) -> PrincipalAxes:
    """Axes with more than rounding error along them, and variances instead of sums of squares."""
    kept = squares > 1e-12 * squares[0].clamp_min(torch.finfo(torch.float64).tiny)
    # n - 1 for n rows, also with weights that are numbers of copies; other weights may add up to less than n
    divisor = n_counted - n_counted / max(n_counted, n_rows) or 1.0
    return PrincipalAxes(mean, axes[kept], squares[kept] / divisor, total / divisor, n_all)


def _eigh(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and -vectors, on one thread: the last bits of LAPACK's depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return torch.linalg.eigh(symmetric)
    finally:
        torch.set_num_threads(threads)


def perceptron(sizes: tuple[int, ...], activation: str) -> nn.Sequential:
    """Linear layers with an activation between each two."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


class Network(nn.Module):
    """What the estimators ask of a network. Of these, ``encode`` and ``decode`` are needed; the rest has a default.

    code_scale: what codes are multiplied by to be in the units of the scaled rows, a number or a tensor of shape
    (n_components,), 1 if it is not set; None if codes have units of their own, as those of a prior.
    has_pca: whether the network is PCA once it is initialized at principal axes, so that it can be the PCA fallback.
    """

    code_scale: Tensor | float | None
    has_pca: bool = True

    def encode(self, x: Tensor) -> Tensor:
        """Codes of scaled rows, (batch, n_inputs) -> (batch, n_components)."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """Scaled rows of codes, (batch, n_components) -> (batch, n_features)."""
        raise NotImplementedError

    def principal_axes(
        self, x: Tensor | SparseRows, n_axes: int, rows: Tensor | None = None, weights: Tensor | None = None
    ) -> PrincipalAxes:
        """The principal axes of x, or of some of its rows, that `initialize` takes."""
        return principal_axes(x, n_axes, rows, weights)

    def initialize(self, x: Tensor | SparseRows, rows: Tensor, axes: PrincipalAxes | None) -> None:
        """Initialize what depends on data: at principal axes, or, if axes is None, beside the random weights.

        x: scaled rows, (n_samples, n_inputs), to be taken as x[rows]; rows: indices of those that may be looked at,
        more than once if they weigh more.
        """


class LinearPlusPerceptron(nn.Module):
    """The map ``x -> W x + b + perceptron(x)``; without hidden layers, ``x -> W x + b``."""

    def __init__(self, n_in: int, hidden_layer_sizes: tuple[int, ...], n_out: int, activation: str) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)
        sizes = (n_in, *hidden_layer_sizes, n_out)
        self.perceptron = perceptron(sizes, activation) if hidden_layer_sizes else None

    @property
    def without_decay(self) -> tuple[Tensor, ...]:
        """Decay draws the map to a linear one, not to zero: what is linear is not penalized."""
        return (self.linear.weight,)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y if self.perceptron is None else y + self.perceptron(x)

    @torch.no_grad()
    def set_linear(self, weight: Tensor, bias: Tensor) -> None:
        """Make this ``x -> weight x + bias``: the perceptron's output layer at zero, its hidden ones as they are.

        Inputs beyond the columns of the weight get zeros.
        """
        self.linear.weight.zero_()
        self.linear.weight[:, : weight.shape[1]] = weight
        self.linear.bias.copy_(bias)
        if self.perceptron is not None:
            self.perceptron[-1].weight.zero_()
            self.perceptron[-1].bias.zero_()


class AutoEncoderModule(Network):
    """Encoder ``(batch, n_features) -> (batch, n_components)`` and its mirror image, the decoder.

    With ``probabilities=True`` the features are in [0, 1] and ``decode`` is the logistic function of ``logits``. There
    the linear map gives the probability itself, cut to [0.01, 0.99], and the perceptron is added to its logit, so that
    PCA's reconstruction can initialize this decoder too.

    Codes are about of unit variance, which suits the perceptrons; ``code_scale`` gives them the units of x.
    """

    def __init__(
        self,
        n_features: int,
        n_components: int,
        hidden_layer_sizes: tuple[int, ...],
        activation: str,
        probabilities: bool = False,
        n_heads: int = 1,
    ) -> None:
        super().__init__()
        self.probabilities = probabilities
        self.encoder = LinearPlusPerceptron(n_features, hidden_layer_sizes, n_heads * n_components, activation)
        self.decoder = LinearPlusPerceptron(n_components, hidden_layer_sizes[::-1], n_features, activation)
        if probabilities:
            nn.init.constant_(self.decoder.linear.bias, 0.5)
        self.register_buffer("code_scale", torch.ones(n_components))

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.logits(z).sigmoid() if self.probabilities else self.decoder(z)

    def logits(self, z: Tensor) -> Tensor:
        logits = self.decoder.linear(z).clamp(MARGIN, 1 - MARGIN).logit()
        return logits if self.decoder.perceptron is None else logits + self.decoder.perceptron(z)

    def initialize(self, x: Tensor | SparseRows, rows: Tensor, axes: PrincipalAxes | None) -> None:
        if axes is not None:
            self.set_pca(axes)

    def set_pca(self, pca: PrincipalAxes) -> None:
        """Make encoding and decoding PCA, with codes of unit variance."""
        mean, axes, variances = pca[:3]
        deviations = variances.sqrt()
        inverse = torch.where(variances > 0, 1 / deviations, 0)
        if self.code_scale is not None:
            self.code_scale.copy_(torch.where(variances > 0, deviations, 1))
        encode = inverse[:, None] * axes
        self.encoder.set_linear(encode, -encode @ mean)
        self.decoder.set_linear((deviations[:, None] * axes).T, mean)


class VariationalModule(AutoEncoderModule):
    """Gaussian posterior ``N(mean, diag(exp(log_var)))`` over codes; ``encode`` is its mean.

    A Gaussian decoder has one noise variance for all features: ``log_noise`` is its logarithm, learned if
    ``noise_variance`` is None and fixed at it otherwise. The distribution of the codes is the module ``prior``, which
    the estimator sets.
    """

    # The logarithm of the noise has to fall by several units while a weight moves by a few tenths: it is this many
    # times the parameter that the optimizer steps.
    NOISE_STEP = 10.0
    # No posterior need be wider than e times the prior; for a row far from all others its exponential would overflow.
    MOST_LOG_VAR = 1.0

    def __init__(
        self,
        n_features: int,
        n_components: int,
        hidden_layer_sizes: tuple[int, ...],
        activation: str,
        probabilities: bool = False,
        noise_variance: float | None = None,
        beta: float = 1.0,
    ) -> None:
        super().__init__(n_features, n_components, hidden_layer_sizes, activation, probabilities, n_heads=2)
        self.prior = None
        self.code_scale = None  # codes have the units of the prior
        self.beta = beta
        log_noise = torch.tensor(1.0 if noise_variance is None else noise_variance).log()
        self.learns_noise = noise_variance is None and not probabilities
        self.noise = nn.Parameter(log_noise / self.NOISE_STEP, requires_grad=self.learns_noise)

    @property
    def log_noise(self) -> Tensor:
        if not self.learns_noise:
            return self.NOISE_STEP * self.noise
        return torch.log((self.NOISE_STEP * self.noise).exp() + LEAST_NOISE)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = self.encoder(x).chunk(2, dim=-1)
        return mean, log_var.clamp(max=self.MOST_LOG_VAR)

    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]

    def modelled(self, x: Tensor) -> Tensor:
        """The columns of x that the decoder gives: here all."""
        return x

    def with_condition(self, z: Tensor, x: Tensor) -> Tensor:
        """What the decoder takes for codes z of rows x: here the codes alone."""
        return z

    def initialize(self, x: Tensor | SparseRows, rows: Tensor, axes: PrincipalAxes | None) -> None:
        super().initialize(x, rows, axes)
        if hasattr(self.prior, "initialize"):
            self.prior.initialize(x, rows)

    @torch.no_grad()
    def set_pca(self, pca: PrincipalAxes) -> None:
        r"""Make this probabilistic PCA, whose bound is the log-likelihood (Lucas et al. 2019, section 4).

        With noise v and s = beta v, the best linear decoder has columns :math:`\sqrt{\lambda_i - s}\, u_i` and the
        posterior is :math:`N(\sqrt{\lambda_i - s} / \lambda_i \, u_i^T (x - mean), s / \lambda_i)`, for every component
        with :math:`\lambda_i > s`; the others are the prior. Learned noise is set to its best value, the sum of the
        discarded variances over their number (n_all - beta n_components). Where rows are fewer than features that is,
        as in PCA, the number of variances that the rows could show: less noise would be too little for other rows.
        """
        mean, axes, variances, total, n_all = pca
        n_components = len(axes)
        rest = max(total - float(variances.sum()), 0.0)
        if self.learns_noise:
            positive = variances[variances > 0]
            noise = rest / max(n_all - self.beta * min(n_components, n_all), 1)
            if n_components >= n_all and len(positive):
                noise = 0.5 * float(positive.min())  # no variance is discarded: the model is exact for any less noise
            self.noise.copy_(torch.tensor(max(noise, 2 * LEAST_NOISE) - LEAST_NOISE).log() / self.NOISE_STEP)
        s = max(self.beta * float(self.log_noise.exp()), 1e-12)  # for beta = 0 the posterior has next to no width
        if self.probabilities:
            s = max(rest / max(n_all - n_components, 1), LEAST_NOISE)
        active = variances > s
        decode = torch.where(active, (variances - s).clamp_min(0).sqrt(), 0)
        encode = torch.where(active, decode / variances, 0)[:, None] * axes
        log_var = torch.where(active, (s / variances).log(), 0)
        self.encoder.set_linear(torch.cat([encode, torch.zeros_like(encode)]), torch.cat([-encode @ mean, log_var]))
        self.decoder.set_linear((decode[:, None] * axes).T, mean)
