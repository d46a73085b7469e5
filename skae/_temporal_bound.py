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
    module: TemporalModule, x: Tensor, beliefs: Beliefs, after: Tensor, jumps: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four terms of the bound for jumps to times after, for one draw of the states; each (batch, n_jumps).

    ln p_D(x_t2 | z_t2), ln p_T(z_t2 | z_t1), ln p_B(z_t2 | b_t2) and the divergence of q_S from p_B(z_t1 | b_t1).
    """
    (b1, _), (b2, _) = beliefs.at(after - jumps), beliefs.at(after)
    z2 = b2.draw(torch.randn_like(b2.mean))
    smoothed = module.smooth(z2, beliefs, after, jumps)
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
    (b1, _), (b2, _) = beliefs.at(after - 1), beliefs.at(after)
    z2 = b2.draw(first)
    smoothed = module.smooth(z2, beliefs, after, torch.ones_like(after))
    z1 = smoothed.draw(second)
    return (
        gaussian_log_likelihood(module.observations(x, after), module.observe(z2), module.log_noise)
        + module.transit(z1, same_jump(z2, 1)).log_density(z2)
        + b1.log_density(z1)
        - b2.log_density(z2)
        - smoothed.log_density(z1)
    )


def mean_bound(module: TemporalModule, x: Tensor, beliefs: Beliefs, longest: int) -> Tensor:
    """Mean of the bound over random times of each window, one of each part, and jumps to them, as long as that."""
    shape = len(x), min(N_NEIGHBOURS if longest == 1 else N_JUMPS, module.n_steps)
    parts = torch.arange(shape[1], device=x.device) + torch.rand(shape, device=x.device)
    after = 1 + (module.n_steps / shape[1] * parts).long().clamp_max(module.n_steps - 1)
    jumps = 1 + (after.clamp_max(longest) * torch.rand(shape, device=x.device)).long()
    log_likelihood, log_transition, log_belief, divergence = terms(module, x, beliefs, after, jumps)
    return (log_likelihood + log_transition - log_belief - divergence).mean(-1)


def same_jump(z: Tensor, length: int) -> Tensor:
    """A jump of one length for each state z, (..., n_components)."""
    return torch.full(z.shape[:-1], length, device=z.device)
