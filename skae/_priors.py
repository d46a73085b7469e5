"""Priors of variational autoencoders: modules with the log-density of codes and draws of them.

Each has ``log_density(module, z)`` and ``draw(module, noise, rng)``, where module is the network that the prior is part
of and noise are standard normal draws, and ``n_parts``, with how many normal distributions a code is compared.
"""

import math

import torch
from torch import nn

from ._losses import normal_log_density, standard_normal_log_density, with_noise
from ._rows import TableRows
from ._training import seeded

N_PSEUDO_INPUTS = 100
N_TRANSFORMS = 2


class NormalPrior(nn.Module):
    """The standard normal distribution."""

    n_parts = 1

    def log_density(self, module, z):
        return standard_normal_log_density(z)

    def draw(self, module, noise, rng):
        return noise


class VampPrior(nn.Module):
    """Mixture of the posteriors of pseudo-inputs: rows of the data plus learned shifts."""

    n_parts = N_PSEUDO_INPUTS

    def __init__(self, n_features):
        super().__init__()
        self.register_buffer("rows", torch.zeros(N_PSEUDO_INPUTS, n_features))
        self.shift = nn.Parameter(torch.zeros(N_PSEUDO_INPUTS, n_features))

    def initialize(self, x, rows):
        """Draw the pseudo-inputs from some rows of x."""
        self.rows.copy_(x[rows[torch.randint(len(rows), (N_PSEUDO_INPUTS,)).to(rows)]])

    def pseudo_inputs(self):
        return TableRows.of(self.rows + self.shift)  # what was missing of the rows is missing

    def log_density(self, module, z):
        posterior = module.posterior(self.pseudo_inputs())
        return normal_log_density(z[..., None, :], *posterior).logsumexp(-1) - math.log(N_PSEUDO_INPUTS)

    def draw(self, module, noise, rng):
        posterior = module.posterior(self.pseudo_inputs())
        which = torch.as_tensor(rng.randint(N_PSEUDO_INPUTS, size=len(noise)), device=noise.device)
        return with_noise(noise, *(part[which] for part in posterior))


class FlowPrior(nn.Module):
    """An invertible map f with N(f(z); 0, I) |det f'(z)| as the density of z; at the initialization the identity.

    The map is autoregressive, so that components keep in it the order and signs in which it was trained: ``basis``, a
    permutation with signs, leads from those of the code to these.
    """

    n_parts = 1

    def __init__(self, n_components):
        super().__init__()
        try:
            from zuko.flows import NSF
        except ImportError as error:
            raise ImportError("prior='flow' needs the package zuko: pip install zuko.") from error
        with seeded(0, torch.device("cpu")):
            self.flow = NSF(n_components, transforms=N_TRANSFORMS, hidden_features=(64, 64))
        for transform in self.flow.transform.transforms:
            last = transform.hyper[-1] if n_components > 1 else transform  # of one component no other is a context
            for weights in last.parameters():
                nn.init.zeros_(weights)
        self.register_buffer("basis", torch.eye(n_components))

    def map_code(self, inverse):
        """Let the density be that of codes z of which ``inverse z`` are the present ones."""
        self.basis.copy_(self.basis.cpu().double() @ inverse)

    def log_density(self, module, z):
        noise, log_determinant = self.flow.transform().call_and_ladj(z @ self.basis.T)
        return standard_normal_log_density(noise) + log_determinant

    def draw(self, module, noise, rng):
        return self.flow.transform().inv(noise @ self.basis.T) @ self.basis
