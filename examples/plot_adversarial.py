"""
Codes that look like the prior
==============================

An adversarial autoencoder makes the codes of all rows together a draw of the prior: there are no holes to draw from. A
plain autoencoder's codes lie where they like, a VAE's roughly about the prior.
"""

# %%
# Two components, so that all can be seen.

import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skae import VAE, AdversarialAutoEncoder, AutoEncoder

QUICK = {"max_iter": 3} if os.environ.get("SKAE_EXAMPLES_QUICK") else {}

X, digit = load_digits(return_X_y=True)
X = X / 16
models = {type(model).__name__: model for model in (AutoEncoder(), VAE(), AdversarialAutoEncoder())}
codes = {}
for name, model in models.items():
    model.set_params(random_state=0, **QUICK).fit(X)
    codes[name] = model.transform(X)
    Z = codes[name] / (codes[name].std(axis=0) if name == "AutoEncoder" else 1)
    beyond = (np.linalg.norm(Z, axis=1) > 2).mean()
    print(f"{name:24} share of codes further than 2 from the origin {beyond:.3f} (prior: {np.exp(-2):.3f})")

# %%
# Above the codes, coloured by digit, with circles that hold a half and nine tenths of the prior; of AutoEncoder they
# have no meaning. Below rows decoded from draws of the prior (for AutoEncoder, a normal distribution with the variances
# of its codes).

noise = np.random.RandomState(0).standard_normal((48, 2))
figure, panels = plt.subplots(2, 3, figsize=(12, 6.4), height_ratios=(2, 1), layout="constrained")
for (name, model), above, below in zip(models.items(), panels[0], panels[1], strict=True):
    scale = codes[name].std(axis=0) if name == "AutoEncoder" else 1.0
    above.scatter(*(codes[name] / scale).T, c=digit, cmap="tab10", s=6)
    for share in (0.5, 0.9):
        radius = np.sqrt(-2 * np.log(1 - share))
        above.add_patch(plt.Circle((0, 0), radius, fill=False, linestyle="--"))
    above.set(title=f"{name}: codes", xlim=(-4, 4), ylim=(-4, 4), aspect="equal")
    drawn = model.inverse_transform(noise * scale).reshape(4, 12, 8, 8)
    below.imshow(drawn.transpose(0, 2, 1, 3).reshape(32, 96), cmap="gray_r", vmin=0, vmax=1)
    below.set(title="decoded draws", xticks=[], yticks=[])
figure.savefig("adversarial.png", dpi=120)
