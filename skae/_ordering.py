r"""The order of the components: the network is the same, its code has other coordinates.

Codes z = f(x) and a decoder g can be replaced by z' = A (z - c) and g(A^{-1} z' + c), folded into the weights of the
layers beside the code. How much of that a network can absorb, and its objective leaves as it is, differs: see
``code_map`` of `Network`.
"""

import copy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ._axes import PrincipalAxes
from ._distributed import of_first, summed, total
from ._initialization import axes_of
from ._mapped import indices
from ._rows import training_rows_at_once
from ._training import Data, Loss, evaluate, reproducible

__all__ = ["ordered"]

# Rows whose reconstructions tell what a component explains, if the decoder is not linear: at most so many, or numbers.
MOST_ROWS, MOST_NUMBERS = 1000, 2**23
# Points on the way from the mean code to that of a row: with four, sums were right to a hundredth on all data tried.
N_POINTS = 4
# Rows whose losses are compared.
ROWS_TO_COMPARE = 100
# A direction of the code with a smaller share of the largest variance is not used.
LEAST_SHARE = 1e-8
# A loss that changes by more than this share of itself, and of the variance of X, is another one.
LOSS_TOLERANCE, VARIANCE_TOLERANCE = 1e-4, 1e-6


class Moments(NamedTuple):
    """Of the codes z of all rows and of these rows x, in float64 on the CPU.

    Mean (k,) and covariance (k, k) of z, covariance (k, n_features) of z and x, and the total variance of x. Variances
    are divided by the number of rows less one, as in PCA.
    """

    mean: Tensor
    covariance: Tensor
    with_rows: Tensor
    total: float


def ordered(
    network: nn.Module, axes: PrincipalAxes | None, data: Data, loss: Loss, seed: int, is_pca: bool
) -> tuple[nn.Module, tuple[np.ndarray, float] | None]:
    """The network with its components in order, and of scaled rows what each explains, (k,), and the total variance.

    Components are made uncorrelated where the network can absorb any linear map of its code and the loss stays what it
    is; then, as near the principal components of X as uncorrelated ones can be. Otherwise they are only sorted and
    given signs. axes: the principal axes of X, if they are known. is_pca: whether components are those of PCA, or were
    rotated before, and are not to be rotated. There are no variances if a code is not finite.
    """
    with reproducible(seed, data.x.device, n_threads=1):
        network.eval()
        moments = moments_of(network, data)
        if not all(bool(torch.isfinite(part).all()) for part in moments[:3]):
            return network, None
        effects = effects_of(network, data, moments)
        code_map = getattr(network, "code_map", None)
        same_loss = _SameLoss(network, loss, data, seed)
        rotates = code_map in ("linear", "orthogonal")
        if rotates and not is_pca:
            axes = axes or axes_of(network, data, len(moments.mean))
            found, explained = _mapped(network, _rotation(code_map, moments, axes), moments, effects, code_map)
            if code_map == "linear":
                _set_units(found, explained)
            if same_loss(found):
                return found, (explained, moments.total)
        if code_map is not None:
            identity = torch.eye(len(moments.mean), dtype=torch.float64)
            present = identity, identity, torch.zeros_like(moments.mean)
            found, explained = _mapped(network, present, moments, effects, code_map)
            if not rotates or same_loss(found):
                return found, (explained, moments.total)
        return network, (effects.diagonal().numpy().copy(), moments.total)


@torch.no_grad()
def moments_of(network: nn.Module, data: Data) -> Moments:
    """In one pass over all rows; of those of a memory map over its sample."""
    rows = indices(data.rows)
    n_rows, weights = total(len(rows)), _weights(data, rows)
    size, n_counted, sums = training_rows_at_once(data.x), float(summed(weights.sum())), None
    for part, w in zip(rows.split(size), weights[:, None].split(size), strict=True):
        batch = data.x[part]
        x, z = _compared(network, batch), _exact(network.encode(batch))
        seen = (~x.isnan()).double() * w
        x = x.nan_to_num(0.0)
        terms = w.T @ z, z.T @ (w * z), z.T @ (w * x), w.T @ x, (w * x * x).sum(0), seen.sum(0)
        sums = terms if sums is None else [before + term for before, term in zip(sums, terms, strict=True)]
    z, zz, zx, x, xx, counts = map(summed, sums)
    mean, divisor = z / n_counted, _divisor(n_counted, n_rows)
    counts = counts.clamp_min(torch.finfo(torch.float64).tiny)
    divisors = [_divisor(count, n_rows) for count in counts.tolist()]
    shares = counts / torch.tensor(divisors, dtype=torch.float64)
    variance = float((shares * (xx / counts - (x[0] / counts).square()).clamp_min(0)).sum())
    return Moments(mean[0], (zz - z.T @ mean) / divisor, (zx - mean.T @ x) / divisor, variance)


def effects_of(network: nn.Module, data: Data, moments: Moments) -> Tensor:
    r"""What components explain, in any coordinates of the code: a matrix E, (k, k), whose diagonal is the answer.

    .. math:: E = \frac{1}{n - 1} \sum_i \int_0^1 J_g(\bar z + t (z_i - \bar z))^T (\hat x_i - \bar x) \, dt \;
        (z_i - \bar z)^T

    Its trace is the variance of the reconstruction, as the integrals along the ways from the mean code add up to the
    ways of the reconstruction (Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks", eq. 1 and
    proposition 1). With z' = A (z - c) it is :math:`A^{-T} E A^T`. Of a linear decoder the Jacobian is its matrix.
    """
    slopes = network.slopes() if hasattr(network, "slopes") else None
    rows = indices(data.rows)
    if slopes is not None:
        weights = getattr(data.x[rows[:1]], "weights", None)
        slopes = _exact(slopes) if weights is None else _exact(weights).sqrt()[:, None] * _exact(slopes)
        return slopes.T @ slopes @ moments.covariance
    rows = _some(rows, min(MOST_ROWS, max(1, MOST_NUMBERS // data.x.shape[1])))
    batch, weights = data.x[rows], _weights(data, rows)
    divisor = _divisor(float(summed(weights.sum())), total(len(rows)))
    weights = (weights / divisor)[:, None].to(batch.device, torch.float32)
    with torch.no_grad():
        z = network.encode(batch)
        centre = moments.mean.to(z).expand_as(z)
        target = _decoded(network, z, batch) - _decoded(network, centre, batch)
        target = weights * (target - summed((weights * target).sum(0)) / summed(weights.sum()))
        of_inputs = getattr(batch, "weights", None)
        target = target if of_inputs is None else target * of_inputs
    gradients = torch.zeros_like(z)
    for point, weight in zip(*np.polynomial.legendre.leggauss(N_POINTS), strict=True):
        between = (centre + (point + 1) / 2 * (z - centre)).requires_grad_()
        value = (_decoded(network, between, batch) * target).sum()
        if value.requires_grad:  # a decoder may have no derivative
            gradients += weight / 2 * torch.autograd.grad(value, between)[0]
    return summed(_exact(gradients).T @ _exact(z - centre))


def _some(rows: Tensor, most: int) -> Tensor:
    """At most so many of the rows, from all over them."""
    return rows if len(rows) <= most else rows[torch.linspace(0, len(rows) - 1, most).long().to(rows.device)]


def _weights(data: Data, rows: Tensor) -> Tensor:
    """How much some of the rows of this process count, so that those of all count alike, however many each takes."""
    weights = torch.ones(len(rows), dtype=torch.float64) if data.weights is None else data.weights[rows.cpu()]
    return weights * (len(data.rows) / total(len(data.rows)) * total(len(rows)) / len(rows))


def _decoded(network: nn.Module, z: Tensor, batch: Tensor) -> Tensor:
    return network.decode(network.with_condition(z, batch) if hasattr(network, "with_condition") else z)


def _compared(network: nn.Module, batch: Tensor) -> Tensor:
    """Rows as they are compared with their reconstruction."""
    x = _exact(network.modelled(batch) if hasattr(network, "modelled") else batch)
    weights = getattr(batch, "weights", None)
    return x if weights is None else x * _exact(weights).sqrt()


def _exact(x: Tensor) -> Tensor:
    return x.detach().as_subclass(Tensor).cpu().double()


def _divisor(n_counted: float, n_rows: int) -> float:
    """n - 1 for n rows, also with weights that are numbers of copies."""
    return n_counted - n_counted / max(n_counted, n_rows, 1) or 1.0


def _rotation(code_map: str, moments: Moments, axes: PrincipalAxes) -> tuple[Tensor, Tensor, Tensor]:
    """A matrix, its inverse and a shift: of codes of unit variance, uncorrelated, nearest to principal components.

    Of all uncorrelated ones these have the largest sum of covariances with the principal components, one by one: the
    orthogonal Procrustes problem. A network that absorbs only orthogonal maps has a code that is almost uncorrelated.
    """
    k = len(moments.mean)
    shared = moments.with_rows @ _exact(axes.axes).T
    if code_map == "orthogonal":
        rotation = _nearest_rotation(shared)
        return rotation, rotation.T, torch.zeros_like(moments.mean)
    variances, directions = torch.linalg.eigh(moments.covariance)
    variances, directions = variances.flip(0), directions.flip(1)
    n_used = int((variances > LEAST_SHARE * variances[0]).sum()) if variances[0] > 0 else 0
    deviations, used, unused = variances[:n_used].sqrt(), directions[:, :n_used], directions[:, n_used:]
    whiten = (used / deviations).T
    rotation = _nearest_rotation((whiten @ shared)[:, : min(n_used, k)])
    matrix = torch.cat([rotation @ whiten, unused.T])
    return matrix, torch.cat([(used * deviations) @ rotation.T, unused], 1), moments.mean


def _nearest_rotation(shared: Tensor) -> Tensor:
    """The orthogonal matrix R for which the trace of R M is largest; columns that M lacks are zero."""
    square = shared.new_zeros(len(shared), len(shared))
    square[:, : shared.shape[1]] = shared
    left, _, right = torch.linalg.svd(square)
    return right.T @ left.T


def _mapped(
    network: nn.Module, rotated: tuple[Tensor, Tensor, Tensor], moments: Moments, effects: Tensor, code_map: str
) -> tuple[nn.Module, np.ndarray]:
    """A copy of the network in other coordinates, sorted and with signs, and what its components explain."""
    matrix, inverse, shift = rotated
    explained = (inverse.T @ effects @ matrix.T).diagonal()
    places = torch.arange(len(explained))
    if code_map != "signs":
        n_parts = getattr(network, "n_code_parts", 1)  # components stay in their part
        for part in range(n_parts):
            places[part::n_parts] = part + n_parts * explained[part::n_parts].argsort(descending=True, stable=True)
    signs = torch.ones_like(explained)
    if code_map != "permutation":
        loadings = matrix[places] @ moments.with_rows
        largest = loadings.gather(1, loadings.abs().argmax(1, keepdim=True)).squeeze(1)
        signs = torch.where(largest < 0, -1.0, 1.0).double()
    matrix, inverse, explained = signs[:, None] * matrix[places], signs * inverse[:, places], explained[places]
    network = copy.deepcopy(network)
    network.map_code(matrix, inverse, shift)
    return network, explained.numpy()


def _set_units(network: nn.Module, explained: np.ndarray) -> None:
    """Let codes of unit variance have, in the units of X, the variance that they explain, as PCA's."""
    if explained[0] > 0:
        network.code_scale.copy_(torch.from_numpy(explained.clip(VARIANCE_TOLERANCE * explained[0])).sqrt())


class _SameLoss:
    """Tells whether the loss of some rows is what it is now: not if it is also one of the code itself."""

    def __init__(self, network: nn.Module, loss: Loss, data: Data, seed: int) -> None:
        self.network, self.loss, self.data, self.seed = network, loss, data, seed
        self.before: Tensor | None = None

    def __call__(self, network: nn.Module) -> bool:
        if self.before is None:
            self.before = self._losses(self.network)
        tolerance = LOSS_TOLERANCE * float(self.before.abs().mean()) + VARIANCE_TOLERANCE * self.data.x.shape[1]
        same = float((self._losses(network) - self.before).abs().mean()) <= tolerance
        return bool(of_first(int(same)))

    def _losses(self, network: nn.Module) -> Tensor:
        rows = _some(indices(self.data.rows), ROWS_TO_COMPARE)
        return evaluate(self.loss, network, self.data.source, rows, self.seed)
