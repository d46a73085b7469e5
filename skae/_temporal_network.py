"""The network of TDVAE: beliefs, transitions, the smoothing distribution, and the decoder."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._axes import LEAST_NOISE, PrincipalAxes, observed_axes, principal_axes
from ._layers import Columns, LinearPlusPerceptron, perceptron
from ._losses import normal_kl, normal_log_density
from ._networks import Network
from ._rows import SparseRows
from ._state_space import StateSpace, fitted_state_space

__all__ = ["Beliefs", "TemporalModule"]

# Numbers that tell the perceptrons how long a jump is.
N_JUMP_FEATURES = 8
# The longest jump; longer ones are put together.
MOST_JUMP = 40
# Beliefs about the first states change most: q_S has parameters of its own for so many.
N_EARLY = 8
# The logarithms of variances, in units of the codes, are between these; their exponentials stay well within float32.
LEAST_LOG_VAR, MOST_LOG_VAR = -12.0, 4.0
# Windows that the initialization looks at.
MOST_ROWS = 20_000
# Logarithm of the variance of a belief with random weights.
INITIAL_LOG_VAR = -3.0


class Normal(NamedTuple):
    """Normal distributions of states with the covariance ``factor diag(exp(log_var)) factor.T``.

    Shapes (..., k), (..., k) and (..., k, k), lower triangular with ones in the diagonal.
    """

    mean: Tensor
    log_var: Tensor
    factor: Tensor

    def draw(self, noise: Tensor) -> Tensor:
        """States for standard normal noise, (..., k)."""
        return self.mean + ((0.5 * self.log_var).exp() * noise)[..., None, :].mul(self.factor).sum(-1)

    def log_density(self, z: Tensor) -> Tensor:
        """Log-density of states, (..., k), in nats."""
        deviations = _solved(self.factor, (z - self.mean)[..., None]).squeeze(-1)
        return normal_log_density(deviations, torch.zeros_like(deviations), self.log_var)

    def divergence_from(self, other: "Normal") -> Tensor:
        """Divergence of these from others, in nats."""
        shift = _solved(other.factor, (self.mean - other.mean)[..., None]).squeeze(-1)
        ratio = _solved(other.factor, self.factor)
        marginal = (ratio.square() * self.log_var.exp()[..., None, :]).sum(-1).log()
        # that of the marginal distributions, and what these know less than all together
        return normal_kl(shift, marginal, torch.zeros_like(shift), other.log_var) + 0.5 * (marginal - self.log_var).sum(
            -1
        )


def _solved(factor: Tensor, values: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(factor, values, upper=False, unitriangular=True)


class Beliefs(NamedTuple):
    """Beliefs about the state after 0, 1, ..., n_steps observations.

    mean, log_var: of the state z given the observations so far, (batch, n_steps + 1, n_components). factor: that of the
    covariance at each time, (n_steps + 1, n_components, n_components). memory: what the recurrent network keeps,
    (batch, n_steps + 1, n_units).
    """

    mean: Tensor
    log_var: Tensor
    factor: Tensor
    memory: Tensor

    def at(self, times: Tensor, n_apart: int = 0) -> tuple[Normal, Tensor]:
        """Distributions of the state, and what is kept, at times of each row: times (batch, n_times).

        The last n_apart are constants to their gradients.
        """
        found = *(_at(values, times) for values in (self.mean, self.log_var, self.memory)), _chosen(self.factor, times)
        if n_apart:
            found = (torch.cat([part[:, :-n_apart], part[:, -n_apart:].detach()], 1) for part in found)
        mean, log_var, memory, factor = found
        return Normal(mean, log_var, factor), memory

    def last(self) -> Normal:
        """Distributions of the state after the last step, (batch, n_components)."""
        return Normal(self.mean[:, -1], self.log_var[:, -1], self.factor[-1])


def _at(values: Tensor, times: Tensor) -> Tensor:
    return values.gather(1, times[..., None].expand(-1, -1, values.shape[-1]))


def _chosen(table: Tensor, places: Tensor) -> Tensor:
    """``table[places]``, whose gradient takes several times as long."""
    return F.embedding(places, table.flatten(1)).unflatten(-1, table.shape[1:])


class Conditional(nn.Module):
    """Normal distribution of a state given x and a jump: its length, or its length and place.

    The mean is a linear map of x and the covariance a constant, one for each jump. A perceptron of x, more inputs and
    the jump is added to the mean and to the logarithms of the variances.
    """

    def __init__(
        self, n_in: int, n_more: int, hidden_layer_sizes: tuple[int, ...], n_out: int, activation: str, n_jumps: int
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_jumps, n_out, n_in) / math.sqrt(n_in))
        self.bias = nn.Parameter(torch.zeros(n_jumps, n_out))
        self.log_var = nn.Parameter(torch.zeros(n_jumps, n_out))
        self.factor = nn.Parameter(torch.eye(n_out).repeat(n_jumps, 1, 1))
        self.perceptron = None
        if hidden_layer_sizes:
            self.lengths = nn.Parameter(torch.randn(n_jumps, N_JUMP_FEATURES))
            sizes = (n_in + n_more + N_JUMP_FEATURES, *hidden_layer_sizes, 2 * n_out)
            self.perceptron = perceptron(sizes, activation)
            nn.init.zeros_(self.perceptron[-1].weight)
            nn.init.zeros_(self.perceptron[-1].bias)

    @property
    def without_decay(self) -> tuple[Tensor, ...]:
        lengths = () if self.perceptron is None else (self.lengths,)
        return (self.weight, self.bias, self.log_var, self.factor, *lengths)

    def forward(self, x: Tensor, more: Tensor, jumps: Tensor) -> Normal:
        """x: (..., n_in), more: (..., n_more), jumps: (...), from 0 on; distributions of (..., n_out)."""
        factor = self.factor.tril(-1) + torch.eye(self.factor.shape[1], device=x.device, dtype=x.dtype)
        weight, factor = _chosen(self.weight, jumps), _chosen(factor, jumps)
        mean, log_var = (weight * x[..., None, :]).sum(-1) + _chosen(self.bias, jumps), _chosen(self.log_var, jumps)
        if self.perceptron is not None:
            inputs = torch.cat([x, more, _chosen(self.lengths, jumps)], -1)
            shift, log_change = self.perceptron(inputs).chunk(2, -1)
            mean, log_var = mean + shift, log_var + log_change
        return Normal(mean, log_var.clamp(LEAST_LOG_VAR, MOST_LOG_VAR), factor)

    @torch.no_grad()
    def set_jump(self, jump: int, weight: Tensor, covariance: Tensor) -> None:
        """Make the distribution for one jump that of a linear model."""
        self.weight[jump], self.bias[jump] = weight, 0.0
        self.log_var[jump], self.factor[jump] = _factored(covariance)


def _factored(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Log-variances and factor of a covariance."""
    root = torch.linalg.cholesky(covariance)
    return 2 * root.diagonal().log(), root / root.diagonal()


class TemporalModule(Network):
    """Beliefs b_t, p_B(z_t | b_t), p_T(z_t2 | z_t1, t2 - t1), q_S(z_t1 | z_t2, b_t1, b_t2, t2 - t1) and p_D(x_t | z_t).

    Inputs are windows, (batch, n_steps * n_channels), scaled. The mean of a belief is a linear map of the window so
    far, one for each time, plus an output of a recurrent network: linear systems have such beliefs. The code of a
    window is the mean of the last belief; ``decode`` is a regression of the window on it.
    """

    code_scale = None
    # the coordinates of states stay: factors of their covariances are triangular
    code_map = "signed permutation"
    # one network is trained: with random weights a second one gained nothing
    starts_once = True
    # The logarithm of the noise has to fall by several units while a weight moves by a few tenths.
    NOISE_STEP = 10.0

    def __init__(
        self,
        n_features: int,
        n_components: int,
        hidden_layer_sizes: tuple[int, ...],
        activation: str,
        n_channels: int = 1,
        columns: Columns | None = None,
    ) -> None:
        super().__init__()
        self.n_channels, self.columns = n_channels, columns
        self.n_steps = n_features // n_channels
        self.n_early = min(N_EARLY, self.n_steps - 1)
        k, n_jumps = n_components, min(self.n_steps, MOST_JUMP)
        self.longest = n_jumps
        self.filter = nn.Linear(n_features, (self.n_steps + 1) * k)
        self.n_units = hidden_layer_sizes[-1] if hidden_layer_sizes else 0
        self.log_var = nn.Parameter(torch.full((self.n_steps + 1, k), INITIAL_LOG_VAR))
        self.factor = nn.Parameter(torch.eye(k).repeat(self.n_steps + 1, 1, 1))
        if self.n_units:
            self.recurrent = nn.GRU(n_channels * (1 + self.fills), self.n_units, batch_first=True)
            self.head = nn.Linear(self.n_units, 2 * k)
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        self.transition = Conditional(k, 0, hidden_layer_sizes, k, activation, n_jumps)
        n_jumps *= self.n_early + 1
        self.smoothing = Conditional(3 * k, 2 * self.n_units, hidden_layer_sizes, k, activation, n_jumps)
        with torch.no_grad():  # at first what was believed at t1
            self.smoothing.weight.copy_(torch.eye(k, 3 * k).roll(k, 1))
        self.decoder = LinearPlusPerceptron(k, hidden_layer_sizes[::-1], n_channels, activation)
        self.noise = nn.Parameter(torch.zeros(n_channels))
        self.window_decoder = LinearPlusPerceptron(k, hidden_layer_sizes[::-1], n_features, activation)
        self.register_buffer("code", torch.eye(k))  # from the coordinates of states to those of codes

    @property
    def without_decay(self) -> tuple[Tensor, ...]:
        return (self.log_var, self.factor, self.filter.weight)

    @property
    def fills(self) -> bool:
        return self.columns is not None and self.columns.missing

    @property
    def log_noise(self) -> Tensor:
        """Logarithm of the noise variance of each channel, (n_channels,)."""
        return torch.log((self.NOISE_STEP * self.noise).exp() + LEAST_NOISE)

    def steps(self, x: Tensor) -> Tensor:
        """Windows as (batch, n_steps, n_channels)."""
        return x.unflatten(-1, (self.n_steps, self.n_channels))

    def observations(self, x: Tensor, times: Tensor) -> Tensor:
        """Observations of windows at times from 1 on, (batch, n_times) -> (batch, n_times, n_channels)."""
        return _at(self.steps(x), times - 1)

    def beliefs(self, x: Tensor) -> Beliefs:
        """Beliefs at all times of windows x, (batch, n_features), NaN where a cell is missing."""
        missing = self.steps(x.isnan())
        seen = torch.where(missing, 0, self.steps(x))  # at the mean of the step, whatever comes later
        mean = F.linear(seen.flatten(1), self._causal(self.filter.weight), self.filter.bias)
        mean = mean.unflatten(-1, self.log_var.shape)
        log_var = self.log_var.expand_as(mean)
        memory = mean.new_zeros(*mean.shape[:2], 0)
        if self.n_units:
            seen = torch.cat([seen, missing.to(seen)], -1) if self.fills else seen
            memory = F.pad(self.recurrent(seen)[0], (0, 0, 1, 0))
            shift, log_factor = self.head(memory).chunk(2, -1)
            mean, log_var = mean + shift, log_var + log_factor
        factor = self.factor.tril(-1) + torch.eye(self.factor.shape[1], device=mean.device, dtype=mean.dtype)
        return Beliefs(mean, log_var.clamp(LEAST_LOG_VAR, MOST_LOG_VAR), factor, memory)

    def _causal(self, weight: Tensor) -> Tensor:
        """The weights of the maps to beliefs, zero where they would look ahead."""
        parts = weight.view(*self.log_var.shape, self.n_steps, self.n_channels)
        earlier = torch.ones(self.n_steps + 1, self.n_steps, device=weight.device).tril(-1)
        return (parts * earlier[:, None, :, None].to(weight)).flatten(2).flatten(0, 1)

    def transit(self, z: Tensor, jumps: Tensor) -> Normal:
        """p_T for states (..., n_components) and the lengths of jumps (...)."""
        return self.transition(z, z[..., :0], jumps - 1)

    def smooth(
        self, z: Tensor, first: tuple[Normal, Tensor], second: tuple[Normal, Tensor], after: Tensor, jumps: Tensor
    ) -> Normal:
        """q_S for states z at the times after, (..., batch, n_times, n_components), and the jumps that lead there.

        first, second: of `Beliefs.at` before and after the jumps.
        """
        (b1, memory1), (b2, memory2) = first, second
        x, more = torch.cat([b1.mean, b2.mean], -1), torch.cat([memory1, memory2], -1)
        place = self.longest * (after - jumps).clamp_max(self.n_early) + jumps - 1
        x, more = (values.expand(*z.shape[:-1], -1) for values in (x, more))
        return self.smoothing(torch.cat([z, x], -1), more, place.expand(z.shape[:-1]))

    def observe(self, z: Tensor) -> Tensor:
        """Means of p_D: scaled observations (..., n_channels) of states (..., n_components)."""
        return self.decoder(z)

    def code_of(self, beliefs: Beliefs) -> Tensor:
        return beliefs.mean[:, -1] @ self.code.T

    def encode(self, x: Tensor) -> Tensor:
        return self.code_of(self.beliefs(x))

    def decode(self, z: Tensor) -> Tensor:
        return self.window_decoder(z)

    def map_code(self, matrix: Tensor, inverse: Tensor, shift: Tensor) -> None:
        self.code.copy_(matrix @ self.code.cpu().double())
        self.window_decoder.map_inputs(inverse, shift)

    def principal_axes(
        self, x: Tensor | SparseRows, n_axes: int, rows: Tensor | None = None, weights: Tensor | None = None
    ) -> PrincipalAxes:
        return (observed_axes if self.fills else principal_axes)(x, n_axes, rows, weights)

    def fill_by(self, pca: PrincipalAxes) -> None:
        """Missing cells are not filled: a belief is told which they are."""

    @torch.no_grad()
    def initialize(self, x: Tensor | SparseRows, rows: Tensor, axes: PrincipalAxes | None) -> None:
        """With axes, a linear state-space model of maximum likelihood; otherwise the weights stay as they are."""
        if axes is None:
            return
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the last bits of sums depend on the number of threads
        try:
            mean, second = self._moments(x, rows, axes)
            model = fitted_state_space(second, self.n_channels, self.log_var.shape[1])
            self.set_state_space(model.with_unit_states(self.n_steps, second), mean, second)
        finally:
            torch.set_num_threads(threads)

    def _moments(self, x: Tensor | SparseRows, rows: Tensor, axes: PrincipalAxes) -> tuple[Tensor, Tensor]:
        """Mean and covariance of windows; with missing cells those of a factor model."""
        if self.fills:
            noise = max(axes.total - float(axes.variances.sum()), 0.0) / max(axes.n_all - len(axes.axes), 1)
            scaled = axes.axes.double() * (axes.variances.double() - noise).clamp_min(0).sqrt()[:, None]
            return axes.mean.double(), scaled.T @ scaled + noise * torch.eye(scaled.shape[1]).to(scaled)
        chosen = rows[torch.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS)).long().to(rows.device)]
        x = x[chosen].as_subclass(Tensor).double()
        mean = x.mean(0)
        return mean, (x - mean).T @ (x - mean) / len(x)

    @torch.no_grad()
    def set_state_space(self, model: StateSpace, mean: Tensor, second: Tensor) -> None:
        """Make this a linear state-space model: the perceptrons' output layers at zero.

        mean, second: of windows. Beliefs are those of its Kalman filter.
        """
        maps, covariances, _, _ = model.filtered(self.n_steps)
        weight = torch.cat(maps)
        self.filter.weight.copy_(weight)
        self.filter.bias.copy_(-weight @ mean)
        for t, covariance in enumerate(covariances):
            self.log_var[t], self.factor[t] = _factored(covariance)
        for jump, (power, driven) in enumerate(model.jumps(self.longest)):
            self.transition.set_jump(jump, power, driven)
        for early in range(self.n_early + 1):
            start = early if early < self.n_early else self.n_steps  # beliefs are steady then
            for jump, (smoothing, left) in enumerate(model.smoothed(self.longest, start)):
                self.smoothing.set_jump(self.longest * early + jump, smoothing, left)
        self.decoder.set_linear(model.loadings, self.steps(mean).mean(0))
        self.noise.copy_((model.noise - LEAST_NOISE).clamp_min(LEAST_NOISE).log() / self.NOISE_STEP)
        code = maps[-1]
        ridged = code @ second @ code.T + 1e-9 * torch.eye(len(code)).to(code)
        self.window_decoder.set_linear(torch.linalg.solve(ridged, code @ second).T, mean)
