"""
A prior that is learned
=======================

A VAE draws codes from N(0, I), but the codes of data with clusters or bends do not fill that, and rows drawn from
between them are like none of the data. A prior that is learned with the rest goes where the codes are.
"""

# %%
# Two moons, and codes with as many components: what is wrong with the density is wrong with the prior.

import os

import matplotlib.pyplot as plt
from sklearn.datasets import make_moons
from sklearn.model_selection import train_test_split

from skae import VAE

QUICK = {"max_iter": 3} if os.environ.get("SKAE_EXAMPLES_QUICK") else {}

X_train, X_test = train_test_split(make_moons(2000, noise=0.05, random_state=0)[0], random_state=0)
models = {prior: VAE(2, prior=prior, random_state=0, **QUICK).fit(X_train) for prior in ("normal", "vamp", "flow")}

# %%
# Held-out log-likelihood, and rows drawn from each.

figure, panels = plt.subplots(1, 4, figsize=(14, 3.4), sharex=True, sharey=True, layout="constrained")
panels[0].scatter(*X_train[:1000].T, s=3)
panels[0].set(title="data", aspect="equal")
for panel, (prior, model) in zip(panels[1:], models.items(), strict=True):
    score = model.score(X_test)
    print(f"prior={prior!r:9} held-out log-likelihood {score:6.3f} nats")
    panel.scatter(*model.sample(1000, random_state=0).T, s=3, color="C1")
    panel.set(title=f'VAE(prior="{prior}"): {score:.2f} nats', aspect="equal", xlim=(-1.8, 2.8), ylim=(-1.2, 1.7))
figure.savefig("priors.png", dpi=120)
