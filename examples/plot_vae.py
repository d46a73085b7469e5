"""
Sampling from a VAE, and its log-likelihood
===========================================

A variational autoencoder is a density: it draws new rows and says how likely a row is. Held-out digits should be
likely, their left-right mirror images less so, noise not at all.
"""

# %%
# Probabilistic PCA is the linear VAE: `score` of both is the mean log-likelihood of a row in nats.

import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from skae import VAE

QUICK = {"max_iter": 3} if os.environ.get("SKAE_EXAMPLES_QUICK") else {}

X = load_digits().data / 16
X_train, X_test = train_test_split(X, random_state=0)
vae = VAE(10, random_state=0, **QUICK).fit(X_train)
pca = PCA(10).fit(X_train)
print(f"held-out log-likelihood: VAE {vae.score(X_test):.2f} nats, probabilistic PCA {pca.score(X_test):.2f} nats")

# %%
# The log-likelihood of single rows.

mirrored = X_test.reshape(-1, 8, 8)[:, :, ::-1].reshape(-1, 64)
shuffled = np.random.default_rng(0).permuted(X_test, axis=1)
scores = {
    "held-out digits": vae.score_samples(X_test),
    "mirrored": vae.score_samples(mirrored),
    "pixels shuffled": vae.score_samples(shuffled),
}
for name, values in scores.items():
    print(f"{name:16} median {np.median(values):8.1f} nats")

# %%
# New digits: the decoder's mean for codes drawn from the prior, without the noise of the likelihood.

codes = np.random.RandomState(0).standard_normal((48, vae.n_components_))
drawn = vae.inverse_transform(codes).reshape(4, 12, 8, 8)

figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4), layout="constrained")
left.imshow(
    np.vstack([np.hstack(np.pad(row, ((0, 0), (1, 1), (1, 1)))) for row in drawn]), cmap="gray_r", vmin=0, vmax=1
)
left.set(title="drawn from the VAE", xticks=[], yticks=[])
lowest = np.quantile(np.concatenate(list(scores.values())), 0.02)
for (name, values), style in zip(scores.items(), ("-", "--", ":"), strict=True):
    right.hist(values.clip(lowest), bins=80, histtype="step", linestyle=style, linewidth=1.8, label=name)
right.set(title="log-likelihood of single rows", xlabel="ln p(x), nats (bound)", ylabel="rows")
right.legend()
figure.savefig("vae.png", dpi=120)
