"""Principal axes: of complete rows, of sparse ones, and of what is observed of rows with missing cells."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ._distributed import summed, total
from ._mapped import EveryRow, MappedRows
from ._rows import SparseRows, training_rows_at_once

__all__ = [
    "EXACT_SIZE",
    "LEAST_NOISE",
    "PrincipalAxes",
    "axes_by_covariance",
    "observed_axes",
    "observed_posterior",
    "principal_axes",
]

# Up to this many rows or features, whichever are fewer, principal axes are exact; beyond, a randomized SVD finds them.
EXACT_SIZE = 3000
# Sparse rows with more features than that are made dense for their principal axes up to so many numbers, 256 MB.
MOST_NUMBERS = 2**25

# Smallest noise variance, as a share of the mean variance of a feature. The density of data on a linear subspace has no
# maximum; float32 cannot tell residuals below this from zero.
LEAST_NOISE = 1e-6
# The axes of rows with missing cells: at most so many, of so many rows and second moments of their codes, in so many
# steps, which end when the gain in nats a row is this small.
MOST_OBSERVED_AXES, MOST_OBSERVED_ROWS, MOST_OBSERVED_NUMBERS = 64, 3000, 400_000
MOST_STEPS, LEAST_GAIN = 60, 1e-5


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
    if isinstance(x, MappedRows):
        return axes_by_covariance(x, rows)
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
        squares, axes = _by_covariance(deviations)
        total = float(squares.sum())
    else:
        whole = torch.cat(list(deviations))
        squares, vectors = _eigh(whole @ whole.T)
        squares, total = squares.flip(0), float(squares.sum())
        axes = vectors.T.flip(0) @ whole / squares.clamp_min(torch.finfo(torch.float64).tiny).sqrt()[:, None]
    return _significant(mean, axes, squares, total, n_counted, n_rows, n_all)


@torch.no_grad()
def axes_by_covariance(
    x: Tensor | SparseRows | MappedRows, rows: Tensor | EveryRow | None = None, weights: Tensor | None = None
) -> PrincipalAxes:
    """Those of rows that are in memory piece by piece, or in several processes, by the covariance of the features."""
    exact, size = x.device if x.device.type != "mps" else torch.device("cpu"), training_rows_at_once(x)
    rows = torch.arange(len(x), device=x.device) if rows is None else rows
    counts = None if weights is None else weights[rows.cpu()]
    n_rows = total(len(rows))
    n_counted = n_rows if counts is None else float(summed(counts.sum()))

    def parts() -> Iterator[tuple[Tensor, Tensor]]:
        start = 0
        for window in x.in_order(rows) if isinstance(x, MappedRows) else (x[part] for part in rows.split(size)):
            for part in window.split(size):
                start, here = start + len(part), slice(start, start + len(part))
                yield part.to(exact).double(), part.new_ones(1, 1) if counts is None else counts[here, None].to(exact)

    mean = summed(sum((weights * part).sum(0) for part, weights in parts())) / n_counted
    squares, axes = _by_covariance((weights.sqrt() * (part - mean) for part, weights in parts()), of_all=True)
    return _significant(mean, axes, squares, float(squares.sum()), n_counted, n_rows, min(n_rows, x.shape[1]))


def _by_covariance(deviations: Iterable[Tensor], of_all: bool = False) -> tuple[Tensor, Tensor]:
    """Sums of squares along the principal axes, largest first, and the axes, from the products of the features.

    of_all: whether the rows are those of all processes that fit together.
    """
    products: Tensor | None = None
    for part in deviations:
        products = part.T @ part if products is None else products.add_(part.T @ part)
    squares, axes = _eigh(summed(products) if of_all else products)
    return squares.flip(0), axes.T.flip(0)


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


def observed_posterior(deviations: Tensor, precision: Tensor, loadings: Tensor) -> tuple[Tensor, Tensor]:
    r"""Posterior of the codes of a factor model given the cells that are observed: mean and factor of its precision.

    Of :math:`x_j = \mu_j + w_j^T z + \epsilon_j` with :math:`z \sim N(0, I)`, :math:`\epsilon_j \sim N(0, v_j)` the
    posterior is :math:`N(M^{-1} \sum_j w_j d_j / v_j, M^{-1})` with :math:`M = I + \sum_j w_j w_j^T / v_j = L L^T`, the
    sums over the observed j. deviations: d, and precision: 1 / v, shape (n, n_features), both zero where a cell is
    missing. loadings: the rows w_j, (n_features, k). Returns the means (n, k) and L (n, k, k).
    """
    n_features, k = loadings.shape
    products = (loadings[:, :, None] * loadings[:, None, :]).reshape(n_features, k * k)
    factor = torch.linalg.cholesky((precision @ products).view(-1, k, k) + torch.eye(k).to(loadings))
    return torch.cholesky_solve(((precision * deviations) @ loadings)[..., None], factor).squeeze(-1), factor


@torch.no_grad()
def observed_axes(x: Tensor, n_axes: int, rows: Tensor | None = None, weights: Tensor | None = None) -> PrincipalAxes:
    """Principal axes of rows in which cells are missing, NaN, by maximum likelihood: probabilistic PCA by EM.

    One noise variance for all features is learned with the axes, as in Tipping and Bishop (1999, "Probabilistic
    Principal Component Analysis", appendix C). Steps are extrapolated (Varadhan and Roland 2008, "SQUAREM", scheme S3).
    Of many rows 3,000 are taken, fewer for more than 11 axes. total and n_all are such that the discarded variances are
    the noise of each feature.
    """
    exact = x.device if x.device.type != "mps" else torch.device("cpu")  # mps has no float64
    chosen = torch.arange(len(x), device=x.device) if rows is None else rows
    k = max(1, min(n_axes, x.shape[1] - 1, len(chosen) - 1, MOST_OBSERVED_AXES))
    most_rows = min(MOST_OBSERVED_ROWS, max(1000, MOST_OBSERVED_NUMBERS // k**2))
    if len(chosen) > most_rows:
        chosen = chosen[torch.linspace(0, len(chosen) - 1, most_rows).long().to(chosen.device)]
    x = x[chosen].as_subclass(Tensor).to(exact).double()
    counts = (torch.ones(len(x)) if weights is None else weights[chosen.cpu()])[:, None].to(x)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the last bits of LAPACK's depend on the number of threads
    try:
        loadings, mean, noise = _maximum_likelihood(_Observed(x, counts / counts.mean(), k))
    finally:
        torch.set_num_threads(threads)
    _, singular, axes = torch.linalg.svd(loadings.T, full_matrices=False)
    kept = singular.square() > 1e-12
    variances = singular[kept].square() + noise
    total = float(variances.sum() + noise * (x.shape[1] - int(kept.sum())))
    return PrincipalAxes(mean, axes[kept], variances, total, x.shape[1])


def _maximum_likelihood(model: "_Observed") -> tuple[Tensor, Tensor, Tensor]:
    """Loadings, mean and noise variance of the highest likelihood."""
    present = model.initial()
    before, first = model.step(present)
    for _ in range(MOST_STEPS):
        _, second = model.step(first)
        change, bend = first - present, second - 2 * first + present
        length = -(change.norm() / bend.norm()).nan_to_num(1.0, 1.0).clamp(1, 1e3)
        log_likelihood, following = model.step(present - 2 * length * change + length.square() * bend)
        if not log_likelihood > before:
            log_likelihood, following = model.step(second)
        present = following
        log_likelihood, first = model.step(present)
        if not log_likelihood - before > LEAST_GAIN:
            break
        before = log_likelihood
    return model.parts(present)


class _Observed:
    """A factor model of rows with missing cells, whose parameters are one vector: loadings, mean, logarithm of noise.

    counts: how much each row counts, (n_rows, 1), one in the mean.
    """

    def __init__(self, x: Tensor, counts: Tensor, k: int) -> None:
        seen = x.isfinite().double()
        self.x, self.seen, self.counts, self.k = x.nan_to_num(0.0), seen, counts, k
        # inputs that are missing together, as those of one category, have their sums in common
        patterns, self.pattern = seen.unique(dim=1, return_inverse=True)
        self.patterns, self.n_seen = patterns, seen.sum(1)

    def initial(self) -> Tensor:
        """Of the axes of rows filled with the mean."""
        counted = self.seen * self.counts
        mean = (self.counts * self.x).sum(0) / counted.sum(0).clamp_min(torch.finfo(self.x.dtype).tiny)
        deviations = self.seen * (self.x - mean)
        noise = 0.5 * (self.counts * deviations.square()).sum() / counted.sum()
        _, singular, axes = torch.linalg.svd(self.counts.sqrt() * deviations, full_matrices=False)
        loadings = self.x.new_zeros(self.x.shape[1], self.k)
        loadings[:, : len(axes[: self.k])] = axes[: self.k].T * singular[: self.k] / len(self.x) ** 0.5
        return torch.cat([loadings.flatten(), mean, noise.clamp_min(LEAST_NOISE).log()[None]])

    def parts(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n_features = self.x.shape[1]
        loadings, mean, noise = parameters.split([n_features * self.k, n_features, 1])
        return loadings.view(n_features, self.k), mean, noise[0].exp().clamp_min(LEAST_NOISE)

    def step(self, parameters: Tensor) -> tuple[float, Tensor]:
        """Log-likelihood in nats a row, less a constant, and the parameters after a step of EM."""
        loadings, mean, noise = self.parts(parameters)
        deviations = self.seen * (self.x - mean)
        products = self._sums((loadings[:, :, None] * loadings[:, None, :]).flatten(1))
        precision = (self.patterns @ products / noise).view(-1, self.k, self.k)
        factor, info = torch.linalg.cholesky_ex(precision + torch.eye(self.k).to(precision))
        if info.any():
            return -math.inf, parameters
        z = torch.cholesky_solve((deviations @ loadings / noise)[..., None], factor).squeeze(-1)
        squares = (deviations.square().sum(1) - ((deviations @ loadings) * z).sum(1)) / noise
        log_determinant = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(1) + self.n_seen * noise.log()
        log_likelihood = float((-0.5 * self.counts[:, 0] * (squares + log_determinant)).mean())
        return log_likelihood, self._regressed(z, torch.cholesky_inverse(factor))

    def _regressed(self, z: Tensor, covariance: Tensor) -> Tensor:
        """Parameters of the regression of each column on the codes and a constant."""
        k, counted = self.k, self.counts * self.patterns
        codes = torch.cat([z, torch.ones_like(z[:, :1])], 1)
        second = codes[:, :, None] * codes[:, None, :]
        second[:, :k, :k] += covariance
        left = (counted.T @ second.flatten(1)).view(-1, k + 1, k + 1) + 1e-9 * torch.eye(k + 1).to(z)
        solved = torch.linalg.solve(left[self.pattern], (self.counts * self.x).T @ codes)
        loadings, mean = solved[:, :k], solved[:, k]
        errors = self.seen * (self.x - z @ loadings.T - mean).square()
        products = self._sums((loadings[:, :, None] * loadings[:, None, :]).flatten(1))
        spread = ((counted.T @ covariance.flatten(1)) * products).sum()
        noise = ((self.counts * errors).sum() + spread) / (self.counts * self.seen).sum()
        # codes of mean zero and unit variance: the same model in other coordinates, in which EM takes larger steps
        shift = (self.counts * z).mean(0)
        scatter = (self.counts[:, :, None] * second[:, :k, :k]).mean(0) - shift[:, None] * shift
        mean, loadings = mean + loadings @ shift, loadings @ torch.linalg.cholesky(scatter)
        return torch.cat([loadings.flatten(), mean, noise.clamp_min(LEAST_NOISE).log()[None]])

    def _sums(self, values: Tensor) -> Tensor:
        """Sums over the inputs that are missing together."""
        return values.new_zeros(self.patterns.shape[1], values.shape[1]).index_add(0, self.pattern, values)
