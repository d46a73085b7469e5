"""What a type checker makes of the code of a user: ``make lint`` runs mypy over it; it is not executed.

An ignored error is one that it has to find.
"""

from typing import assert_type

import numpy as np

from skae import VAE, VQVAE, AutoEncoder, AutoEncoderImputer, BaseAutoEncoder, memory_map, parameter

X = np.zeros((100, 5))

model = AutoEncoder(10, hidden_layer_sizes=(64,), alpha=0.1, random_state=0)
assert_type(model.fit(X), AutoEncoder)
assert_type(model.partial_fit(X), AutoEncoder)
assert_type(model.transform(X), np.ndarray)
assert_type(model.score(X), float)
assert_type(model.score_samples(X), np.ndarray)
assert_type(model.n_components, int | float)
AutoEncoder(10, alpha="large")  # type: ignore[arg-type]

vae = VAE(2, beta=0.5, max_iter=10).fit(X)
bound, reconstruction, divergence = vae.elbo(X)
assert_type(bound, np.ndarray)
vae.sample(3, random_state=0)
assert_type(VQVAE(2, n_codes="auto").fit(X).predict(X), np.ndarray)
assert_type(AutoEncoderImputer().fit(X), AutoEncoderImputer)
assert_type(memory_map([X], "rows.npy").X, np.memmap)


class Own(BaseAutoEncoder):
    delta: float = parameter(default=1.0)

    def _loss(self, module, x):
        return self.delta * (x - module.decode(module.encode(x))).square().sum(-1)


assert_type(Own(3, delta=2.0).fit(X), Own)
Own(3, delta="two")  # type: ignore[arg-type]
