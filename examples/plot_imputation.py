"""
Missing cells, and how sure to be of them
=========================================

Half of the measurements of the irises are lost. A variational autoencoder fits what is left, fills the holes with its
best guess, and draws from what could have been there: the intervals of the draws say how sure it is.
"""

# %%
# Rows are fitted as they are; `impute` gives the best guess, and with ``n_draws`` what the table could have been.

import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris

from skae import VAE

QUICK = {"max_iter": 3} if os.environ.get("SKAE_EXAMPLES_QUICK") else {}

iris = load_iris()
X = iris.data
lost = np.random.RandomState(0).random_sample(X.shape) < 0.5
X_lost = np.where(lost, np.nan, X)

vae = VAE(4, random_state=0, **QUICK).fit(X_lost)
guess = vae.impute(X_lost)
draws = np.stack(vae.impute(X_lost, n_draws=200, random_state=0))
low, high = np.quantile(draws, [0.05, 0.95], axis=0)
inside = np.mean((low <= X) & (high >= X), where=lost)
error = np.sqrt(np.square(guess - X)[lost].mean())
of_means = np.sqrt(np.square(np.nanmean(X_lost, axis=0) - X)[lost].mean())
print(f"root mean squared error {error:.2f} cm, of column means {of_means:.2f} cm")
print(f"90 % intervals hold {100 * inside:.0f} % of the lost cells")

# %%
# Each lost petal length beside its interval, and the plane of petals as it was, as it is left and as it is filled.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
cells = lost[:, 2]
order = np.argsort(guess[cells, 2])
place = np.arange(cells.sum())
left.vlines(place, low[cells, 2][order], high[cells, 2][order], color="0.75", label="90 % interval of 200 draws")
left.plot(place, guess[cells, 2][order], ".", color="C0", label="best guess")
left.plot(place, X[cells, 2][order], "x", ms=4, color="C3", label="what was there")
left.set(xlabel="flowers without a petal length, by best guess", ylabel="petal length (cm)")
left.legend(loc="lower right")
seen = ~lost[:, 2:].any(axis=1)
right.plot(X[~seen, 2], X[~seen, 3], "x", ms=4, color="C3", label="what was there")
right.plot(guess[~seen, 2], guess[~seen, 3], ".", color="C0", label="filled")
right.plot(X[seen, 2], X[seen, 3], ".", color="0.6", label="observed")
right.set(xlabel="petal length (cm)", ylabel="petal width (cm)")
right.legend()
figure.savefig("imputation.png", dpi=120)
