"""Linear state-space models of windows: maximum likelihood by EM, the Kalman filter, and the smoothing distribution.

All of it is computed from the second moments of the windows: how many there are does not matter.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ._axes import LEAST_NOISE

__all__ = ["StateSpace", "fitted_state_space"]

# EM ends after so many steps, or when one gains less than this many nats an observation. It looks at so many steps of a
# window.
MOST_UPDATES, LEAST_GAIN, MOST_STEPS = 100, 1e-4, 40
# Smallest variances of what drives the states, as a share of theirs.
LEAST_DRIVE = 1e-4
RIDGE = 1e-6
# At the initialization of EM the states do not grow, and some noise is left to each part.
MOST_RADIUS, LEAST_SHARE = 0.999, 0.05


class StateSpace(NamedTuple):
    """z_0 ~ N(0, prior), z_t = transition z_{t-1} + N(0, drive), x_t = loadings z_t + N(0, diag(noise)).

    Shapes (k, k), (k, k), (k, k), (n_channels, k), (n_channels,).
    """

    prior: Tensor
    transition: Tensor
    drive: Tensor
    loadings: Tensor
    noise: Tensor

    def steps(self, n_steps: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Kalman filter: of each time from 1 on the covariances of the state before the observation, of the observation
        and of the state after it, and the gain."""
        covariance = self.prior
        for _ in range(n_steps):
            before = self.transition @ covariance @ self.transition.T + self.drive
            spread = self.loadings @ before @ self.loadings.T + self.noise.diag()
            gain = torch.linalg.solve(spread, self.loadings @ before).T
            covariance = before - gain @ self.loadings @ before
            covariance = (covariance + covariance.T) / 2
            yield before, spread, covariance, gain

    def filtered(self, n_steps: int) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Of each time from 0 on, the map from a window to the mean of the state, (k, n_features), and its covariance;
        of each time from 1 on, the covariances before the observation, and of the observation."""
        n_channels = len(self.noise)
        maps, covariances = [self.prior.new_zeros(len(self.prior), n_steps * n_channels)], [self.prior]
        predicted, observed = [], []
        for t, (before, spread, covariance, gain) in enumerate(self.steps(n_steps)):
            mean = self.transition @ maps[-1]
            mean = mean - gain @ (self.loadings @ mean)
            mean[:, t * n_channels : (t + 1) * n_channels] += gain
            for found, value in zip(
                (maps, covariances, predicted, observed), (mean, covariance, before, spread), strict=True
            ):
                found.append(value)
        return maps, covariances, predicted, observed

    def with_unit_states(self, n_steps: int, second: Tensor) -> "StateSpace":
        """The same model, with states of unit variance that are uncorrelated given a window."""
        maps, covariances, _, _ = self.filtered(n_steps)
        basis = torch.linalg.eigh(covariances[-1])[1].T
        variances = (basis @ (maps[-1] @ second @ maps[-1].T + covariances[-1]) @ basis.T).diagonal()
        basis = basis / variances.sqrt()[:, None]
        inverse = torch.linalg.inv(basis)
        prior, drive = (basis @ covariance @ basis.T for covariance in (self.prior, self.drive))
        return StateSpace(prior, basis @ self.transition @ inverse, drive, self.loadings @ inverse, self.noise)

    def jumps(self, n_steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Map (k, k) and covariance of p_T(z_t2 | z_t1) for jumps over 1, ..., n_steps steps."""
        power, driven = torch.eye(len(self.prior)).to(self.prior), torch.zeros_like(self.prior)
        for _ in range(n_steps):
            power, driven = self.transition @ power, self.transition @ driven @ self.transition.T + self.drive
            yield power, _covariance(driven)

    def smoothed(self, n_steps: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Map (k, 3 k) and covariance of q_S(z_t1 | z_t2, m_t1, m_t2), with t1 the start, for as many jumps.

        m_t are the means of the beliefs. Given b_t1, the errors z - m at both times have the covariance F D' with the
        covariance F of the first and the map D from error to error.
        """
        k, eye = len(self.prior), torch.eye(len(self.prior)).to(self.prior)
        filtered = list(self.steps(start + n_steps))
        first = filtered[start - 1][2] if start else self.prior
        error = eye
        for (power, driven), (_, _, covariance, gain) in zip(self.jumps(n_steps), filtered[start:], strict=True):
            error = (eye - gain @ self.loadings) @ self.transition @ error
            spread = power @ first @ power.T + driven  # of z_t2 given b_t1
            moved = spread - covariance  # of m_t2 given b_t1
            both = torch.cat([torch.cat([spread, moved], 1), torch.cat([moved, moved], 1)])
            with_both = torch.cat([first @ power.T, first @ power.T - first @ error.T], 1)
            ridge = RIDGE * spread.diagonal().mean() * torch.eye(2 * k).to(spread)
            coefficients = torch.linalg.solve(both + ridge, with_both.T).T
            of_state, of_mean = coefficients.split(k, 1)
            smoothing = torch.cat([of_state, eye - (of_state + of_mean) @ power, of_mean], 1)
            yield smoothing, _covariance(first - coefficients @ with_both.T)


def fitted_state_space(second: Tensor, n_channels: int, k: int) -> StateSpace:
    """The model of maximum likelihood, nearly; second: second moments of windows, (n_features, n_features), float64.

    Shumway and Stoffer (1982), "An approach to time series smoothing and forecasting using the EM algorithm".
    """
    second = second[-MOST_STEPS * n_channels :, -MOST_STEPS * n_channels :]
    n_steps, model, before = len(second) // n_channels, _initial(second, n_channels, k), -torch.inf
    for _ in range(MOST_UPDATES):
        log_likelihood, following = _updated(model, second, n_steps)
        if not log_likelihood > before + LEAST_GAIN * len(second):
            break
        model, before = following, log_likelihood
    return model


def _initial(second: Tensor, n_channels: int, k: int) -> StateSpace:
    """States are what the first half of a window tells of the whole of it: reduced-rank regression."""
    n_features = len(second)
    n_steps = n_features // n_channels
    n_past = max(1, n_steps // 2) * n_channels
    eye = torch.eye(n_features).to(second)
    past = second[:n_past, :n_past] + RIDGE * second.diagonal().mean().clamp_min(1e-12) * eye[:n_past, :n_past]
    factor = torch.linalg.cholesky(past)
    explained = torch.linalg.solve_triangular(factor, second[:n_past], upper=False)
    axes, singular, _ = torch.linalg.svd(explained, full_matrices=False)
    n_axes = max(1, min(k, int((singular > 1e-6 * singular[0]).sum())))
    state = torch.linalg.solve_triangular(factor.T, axes[:, :n_axes], upper=True).T  # of unit variance
    shift = n_channels if n_steps > 1 else 0
    now, following = (second.new_zeros(n_axes, n_features) for _ in range(2))
    now[:, :n_past], following[:, shift : shift + n_past] = state, state
    variance = now @ second @ now.T
    ridged = variance + RIDGE * torch.eye(n_axes).to(second)
    transition = torch.linalg.solve(ridged, now @ second @ following.T).T
    radius = float(torch.linalg.eigvals(transition).abs().amax())
    transition = transition * min(1.0, MOST_RADIUS / max(radius, MOST_RADIUS))
    last = eye[n_past - n_channels : n_past]
    loadings = torch.linalg.solve(ridged, now @ second @ last.T).T
    left = (last @ second @ last.T - loadings @ variance @ loadings.T).diagonal()
    whole = torch.eye(k).to(second)
    parts = whole.clone(), 0 * whole, whole.clone(), second.new_zeros(n_channels, k)
    prior, every_transition, drive, every_loading = parts
    every_transition[:n_axes, :n_axes], every_loading[:, :n_axes] = transition, loadings
    drive[:n_axes, :n_axes] = _covariance(variance - transition @ variance @ transition.T, LEAST_SHARE)
    return StateSpace(
        prior,
        every_transition,
        drive,
        every_loading,
        left.clamp_min(max(LEAST_SHARE * float(second.diagonal().mean()), LEAST_NOISE)),
    )


def _updated(model: StateSpace, second: Tensor, n_steps: int) -> tuple[float, StateSpace]:
    """Log-likelihood of a window, less a constant, and the model after a step of EM."""
    n_channels, loadings = len(model.noise), model.loadings
    maps, covariances, predicted, observed = model.filtered(n_steps)
    log_likelihood = 0.0
    for t in range(n_steps):
        surprise = -loadings @ model.transition @ maps[t]
        surprise[:, t * n_channels : (t + 1) * n_channels] += torch.eye(n_channels).to(surprise)
        log_likelihood -= 0.5 * float(
            torch.logdet(observed[t]) + torch.linalg.solve(observed[t], surprise @ second @ surprise.T).trace()
        )
    s, v = maps[-1], covariances[-1]
    with_state = s @ second
    sums = [
        torch.zeros_like(v) for _ in range(3)
    ]  # of z_t z_t', z_{t-1} z_{t-1}', z_t z_{t-1}', without the first ones
    of_x = torch.zeros_like(loadings)
    for t in reversed(range(n_steps)):
        back = torch.linalg.solve(predicted[t], model.transition @ covariances[t]).T
        earlier = maps[t] + back @ (s - model.transition @ maps[t])
        earlier_v = covariances[t] + back @ (v - predicted[t]) @ back.T
        earlier_with_state = earlier @ second
        sums[0] += with_state @ s.T + v
        sums[1] += earlier_with_state @ earlier.T + earlier_v
        sums[2] += with_state @ earlier.T + v @ back.T
        of_x += with_state[:, t * n_channels : (t + 1) * n_channels].T
        s, v, with_state = earlier, earlier_v, earlier_with_state
    ridge = RIDGE * torch.eye(len(v)).to(v)
    transition = torch.linalg.solve(sums[1] + ridge, sums[2].T).T
    drive = (sums[0] - transition @ sums[2].T - sums[2] @ transition.T + transition @ sums[1] @ transition.T) / n_steps
    loadings = torch.linalg.solve(sums[0] + ridge, of_x.T).T
    total = second.diagonal().view(n_steps, n_channels).sum(0)
    left = total - 2 * (loadings * of_x).sum(1) + ((loadings @ sums[0]) * loadings).sum(1)
    noise = (left / n_steps).clamp_min(LEAST_NOISE)
    prior = with_state @ s.T + v
    return log_likelihood, StateSpace(_covariance(prior), transition, _covariance(drive), loadings, noise)


def _covariance(matrix: Tensor, least: float = LEAST_DRIVE) -> Tensor:
    """A symmetric matrix with eigenvalues of at least a share of their mean."""
    values, axes = torch.linalg.eigh((matrix + matrix.T) / 2)
    return (axes * values.clamp_min(least * float(values.clamp_min(0).mean()) + 1e-10)) @ axes.T
