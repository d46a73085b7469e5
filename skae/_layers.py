"""Layers: a linear map plus a perceptron, and the encoders of rows in which cells are missing."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ._axes import LEAST_NOISE, PrincipalAxes, observed_posterior
from ._rows import TableRows

__all__ = [
    "ACTIVATIONS",
    "Columns",
    "FillingEncoder",
    "LinearPlusPerceptron",
    "PosteriorEncoder",
    "map_inputs",
    "map_outputs",
    "perceptron",
]

ACTIVATIONS = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
# In training the posterior of a row is that of its observed cells but for a random share of them, at most this one: so
# that it serves other patterns than those of the rows at hand.
MOST_HIDDEN = 0.3


class Columns(NamedTuple):
    """What a network must know of the columns of a table: those with categories, or with missing cells.

    sizes: inputs of each column, 1 for a number and otherwise the number of categories. categorical: which columns are
    categories. shares: of each input that is a category its share of the rows, 1 for numbers; least_noise: of each
    input that is a number the smallest noise variance. missing: whether cells are missing, NaN.
    """

    sizes: tuple[int, ...]
    categorical: tuple[bool, ...]
    shares: Tensor
    least_noise: Tensor
    missing: bool

    @property
    def column_of_input(self) -> Tensor:
        return torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))

    @property
    def numbers(self) -> Tensor:
        """Places of the inputs that are numbers."""
        return (~torch.tensor(self.categorical)[self.column_of_input]).nonzero().squeeze(1)

    @property
    def members(self) -> Tensor:
        """One where an input, in the rows, is a category of a categorical column."""
        which = torch.tensor(self.categorical)
        return (self.column_of_input[:, None] == which.nonzero().squeeze(1)).float()

    @property
    def categories(self) -> Tensor:
        """Places of the inputs of each categorical column, (n_categorical, most categories), filled up with -1."""
        widths = [size for size, is_category in zip(self.sizes, self.categorical, strict=True) if is_category]
        places = torch.full((len(widths), max(widths, default=0)), -1)
        starts = torch.tensor(self.sizes).cumsum(0) - torch.tensor(self.sizes)
        for row, start in enumerate(starts[torch.tensor(self.categorical)].tolist()):
            places[row, : widths[row]] = torch.arange(start, start + widths[row])
        return places


def perceptron(sizes: tuple[int, ...], activation: str) -> nn.Sequential:
    """Linear layers with an activation between each two."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


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
        x = self.inputs(x)
        y = self.linear(x)
        return y if self.perceptron is None else y + self.perceptron(x)

    def inputs(self, x: Tensor) -> Tensor:
        """What the linear map and the perceptron see of rows x: the mean where a cell is missing."""
        return x.nan_to_num(0.0) if isinstance(x, TableRows) else x

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

    def map_outputs(self, matrix: Tensor, shift: Tensor) -> None:
        """Make this ``x -> matrix (f(x) - shift)``, where it has been f."""
        map_outputs(self.linear, matrix, shift)
        if self.perceptron is not None:
            map_outputs(self.perceptron[-1], matrix, torch.zeros_like(shift))

    def map_inputs(self, matrix: Tensor, shift: Tensor) -> None:
        """Make this ``x -> f(matrix x + shift)``, where it has been f; inputs beyond those of the matrix stay."""
        map_inputs(self.linear, matrix, shift)
        if self.perceptron is not None:
            map_inputs(self.perceptron[0], matrix, shift)


@torch.no_grad()
def map_outputs(layer: nn.Linear, matrix: Tensor, shift: Tensor) -> None:
    """Make a layer f ``x -> matrix (f(x) - shift)``; in float64, on the CPU."""
    weight, bias = layer.weight.cpu().double(), layer.bias.cpu().double()
    layer.weight.copy_(matrix @ weight)
    layer.bias.copy_(matrix @ (bias - shift))


@torch.no_grad()
def map_inputs(layer: nn.Linear, matrix: Tensor, shift: Tensor) -> None:
    """Make a layer f ``x -> f(matrix x + shift)``, for its first inputs; in float64, on the CPU."""
    n_inputs = len(matrix)
    weight, bias = layer.weight[:, :n_inputs].cpu().double(), layer.bias.cpu().double()
    layer.weight[:, :n_inputs] = (weight @ matrix).to(layer.weight)
    layer.bias.copy_(bias + weight @ shift)


class FillingEncoder(nn.Module):
    """A linear map plus a perceptron, of rows whose missing cells are filled, and of which cells these are.

    Cells are filled by what probabilistic PCA expects of them given the observed ones, with which the linear map at
    the principal axes gives the posterior mean of the codes, whatever is missing.
    """

    def __init__(
        self, n_in: int, hidden_layer_sizes: tuple[int, ...], n_out: int, activation: str, n_axes: int
    ) -> None:
        super().__init__()
        self.of_filled = LinearPlusPerceptron(2 * n_in, hidden_layer_sizes, n_out, activation)
        self.register_buffer("mean", torch.zeros(n_in))
        self.register_buffer("loadings", torch.zeros(n_in, n_axes))
        self.register_buffer("noise", torch.ones(()))

    @property
    def linear(self) -> nn.Linear:
        return self.of_filled.linear

    @property
    def perceptron(self) -> nn.Sequential | None:
        return self.of_filled.perceptron

    def inputs(self, x: Tensor) -> Tensor:
        """Filled rows, beside them one where a cell was missing and zero elsewhere: (batch, 2 n_in)."""
        missing = x.isnan()
        deviations = torch.where(missing, 0, x - self.mean)
        z, _ = observed_posterior(deviations, (~missing).to(deviations) / self.noise, self.loadings)
        filled = torch.where(missing, self.mean + z @ self.loadings.T, x)
        return torch.cat([filled, missing.to(filled)], -1)

    def forward(self, x: Tensor) -> Tensor:
        return self.of_filled(self.inputs(x))

    def set_linear(self, weight: Tensor, bias: Tensor) -> None:
        self.of_filled.set_linear(weight, bias)

    def map_outputs(self, matrix: Tensor, shift: Tensor) -> None:
        self.of_filled.map_outputs(matrix, shift)

    @torch.no_grad()
    def fill_by(self, pca: PrincipalAxes) -> None:
        """Fill cells by probabilistic PCA."""
        loadings, noise = factor_model(pca, self.loadings.shape[1])
        self.mean.copy_(pca.mean)
        self.loadings.copy_(loadings)
        self.noise.copy_(noise)


class PosteriorEncoder(nn.Module):
    """Posterior of the codes given the observed cells: that of a factor model, which a perceptron corrects.

    With the posterior N(m, M^-1), M = L L', of a factor model, and u, s from a perceptron of the row, zero where a cell
    is missing, and of which cells are, it is :math:`N(m + L^{-T} u, L^{-T} diag(e^s) L^{-1})`: exact for each pattern
    where the perceptron's output layer is zero. Inputs of a condition, if there are any, come last: the mean of the
    factor model is then a regression on them, and the perceptron sees them too.
    """

    # No posterior need be wider than that of the factor model by more than e; of a much narrower one the density of a
    # draw cannot be computed from the draw in float32.
    LEAST_LOG_VAR, MOST_LOG_VAR = -8.0, 1.0

    def __init__(
        self,
        n_in: int,
        hidden_layer_sizes: tuple[int, ...],
        n_components: int,
        activation: str,
        column_of_input: Tensor,
        n_conditions: int = 0,
    ) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(n_in))
        self.loadings = nn.Parameter(torch.zeros(n_in, n_components))
        self.log_noise = nn.Parameter(torch.zeros(n_in))
        sizes = (2 * n_in + n_conditions, *hidden_layer_sizes, 2 * n_components)
        self.perceptron = perceptron(sizes, activation) if hidden_layer_sizes else None
        self.regression = nn.Linear(n_conditions, n_in, bias=False) if n_conditions else None
        self.register_buffer("column_of_input", column_of_input)

    @property
    def without_decay(self) -> tuple[Tensor, ...]:
        return (self.loadings,) if self.regression is None else (self.loadings, self.regression.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (batch, n_components), s (batch, n_components) and L (batch, n_components, n_components)."""
        x, given = x.tensor_split([len(self.mean)], -1)
        missing = self._hidden(x)
        mean = self.mean if self.regression is None else self.mean + self.regression(given)
        deviations = torch.where(missing, 0, x - mean)
        precision = torch.where(missing, 0, (-self.log_noise).exp())
        mean, factor = observed_posterior(deviations, precision, self.loadings)
        if self.perceptron is None:
            return mean, torch.zeros_like(mean), factor
        shift, log_var = self.perceptron(torch.cat([deviations, missing.to(deviations), given], -1)).chunk(2, -1)
        mean = mean + torch.linalg.solve_triangular(factor.mT, shift[..., None], upper=True).squeeze(-1)
        return mean, log_var.clamp(self.LEAST_LOG_VAR, self.MOST_LOG_VAR), factor

    def _hidden(self, x: Tensor) -> Tensor:
        """Which cells are not looked at: those that are missing and, in training, others of the row."""
        missing = x.isnan()
        if not self.training:
            return missing
        n_columns = int(self.column_of_input[-1]) + 1
        share = MOST_HIDDEN * torch.rand(len(x), 1, device=x.device)
        hidden = torch.rand(len(x), n_columns, device=x.device) < share
        return missing | hidden[:, self.column_of_input]

    @torch.no_grad()
    def map_outputs(self, matrix: Tensor, shift: Tensor) -> None:
        """Give codes other signs: those of the diagonal matrix, first of the means, then, all one, of the variances.

        Only signs: the factor L of components in another order is not L in another order.
        """
        k = self.loadings.shape[1]
        self.loadings.mul_(matrix.diagonal()[:k].to(self.loadings))
        if self.perceptron is not None:
            map_outputs(self.perceptron[-1], matrix, shift)

    @torch.no_grad()
    def set_factor_model(self, loadings: Tensor, mean: Tensor, noise: float) -> None:
        """Make this the posterior of a factor model, with the perceptron's output layer at zero."""
        self.loadings.copy_(loadings)
        self.mean.copy_(mean)
        self.log_noise.fill_(noise).log_()
        if self.perceptron is not None:
            self.perceptron[-1].weight.zero_()
            self.perceptron[-1].bias.zero_()


def factor_model(pca: PrincipalAxes, n_axes: int) -> tuple[Tensor, Tensor]:
    """Loadings (n_features, n_axes) and noise variance of probabilistic PCA."""
    variances = pca.variances
    rest = max(pca.total - float(variances.sum()), 0.0)
    noise = rest / max(pca.n_all - int((variances > 0).sum()), 1)
    noise = variances.new_tensor(noise).clamp_min(LEAST_NOISE)
    loadings = variances.new_zeros(pca.axes.shape[1], n_axes)
    columns = (pca.axes * (variances - noise).clamp_min(0).sqrt()[:, None]).T[:, :n_axes]
    loadings[:, : columns.shape[1]] = columns
    return loadings, noise
