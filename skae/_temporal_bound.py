"""The bound of TDVAE: its terms for pairs of times, and the weights of draws at each step."""

import torch
from torch import Tensor

from ._losses import gaussian_log_likelihood
from ._temporal_network import Beliefs, TemporalModule

__all__ = ["log_weights", "mean_bound", "same_jump", "terms"]

# Pairs of times of a window in a training step, of neighbours and of others. The recurrent network passes over the
# window once for all of them.
N_NEIGHBOURS, N_JUMPS = 10, 3


def terms(
    module: TemporalModule, x: Tensor, beliefs: Beliefs, after: Tensor, jumps: Tensor, n_apart: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four terms of the bound for jumps to times after, for one draw of the states; each (batch, n_jumps).

    ln p_D(x_t2 | z_t2), ln p_T(z_t2 | z_t1), ln p_B(z_t2 | b_t2) and the divergence of q_S from p_B(z_t1 | b_t1). No
    gradient of the last n_apart reaches the beliefs.
    """
    (b1, memory1), (b2, memory2) = beliefs.at(after - jumps, n_apart), beliefs.at(after, n_apart)
    z2 = b2.draw(torch.randn_like(b2.mean))
    smoothed = module.smooth(z2, (b1, memory1), (b2, memory2), after, jumps)
    z1 = smoothed.draw(torch.randn_like(z2))
    return (
        gaussian_log_likelihood(module.observations(x, after), module.observe(z2), module.log_noise),
        module.transit(z1, jumps).log_density(z2),
        b2.log_density(z2),
        smoothed.divergence_from(b1),
    )


def log_weights(module: TemporalModule, x: Tensor, beliefs: Beliefs, noise: Tensor) -> Tensor:
    """Logarithms of the weights of draws at each step of windows, (n_draws, batch, n_steps); noise: (n_draws, 2 k)."""
    batch, n_steps, k = len(x), module.n_steps, module.n_components
    after = torch.arange(1, n_steps + 1, device=x.device).expand(batch, -1)
    first, second = noise[:, None, None].expand(-1, batch, n_steps, -1).split(k, -1)
    (b1, memory1), (b2, memory2) = beliefs.at(after - 1), beliefs.at(after)
    z2 = b2.draw(first)
    smoothed = module.smooth(z2, (b1, memory1), (b2, memory2), after, torch.ones_like(after))
    z1 = smoothed.draw(second)
    return (
        gaussian_log_likelihood(module.observations(x, after), module.observe(z2), module.log_noise)
        + module.transit(z1, same_jump(z2, 1)).log_density(z2)
        + b1.log_density(z1)
        - b2.log_density(z2)
        - smoothed.log_density(z1)
    )


def mean_bound(module: TemporalModule, x: Tensor, beliefs: Beliefs) -> Tensor:
    """Mean of the bound over random neighbouring times of each window, and over random jumps, half and half.

    Jumps are learned from the beliefs, not the other way round.
    """
    neighbours = _random_pairs(x, module.n_steps, N_NEIGHBOURS, 1)
    jumps = _random_pairs(x, module.n_steps, N_JUMPS, module.longest)
    after, lengths = (torch.cat(both, 1) for both in zip(neighbours, jumps, strict=True))
    n_apart = jumps[0].shape[1]
    log_likelihood, log_transition, log_belief, divergence = terms(module, x, beliefs, after, lengths, n_apart)
    bound = log_likelihood + log_transition - log_belief - divergence
    return 0.5 * bound[:, :-n_apart].mean(-1) + 0.5 * bound[:, -n_apart:].mean(-1)


def _random_pairs(x: Tensor, n_steps: int, most: int, longest: int) -> tuple[Tensor, Tensor]:
    """Random times of each window, one of each of so many parts, and jumps to them, as long as that at most."""
    shape = len(x), min(most, n_steps)
    parts = torch.arange(shape[1], device=x.device) + torch.rand(shape, device=x.device)
    after = 1 + (n_steps / shape[1] * parts).long().clamp_max(n_steps - 1)
    return after, 1 + (after.clamp_max(longest) * torch.rand(shape, device=x.device)).long()


def same_jump(z: Tensor, length: int) -> Tensor:
    """A jump of one length for each state z, (..., n_components)."""
    return torch.full(z.shape[:-1], length, device=z.device)
