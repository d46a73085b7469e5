"""
Codes that noise does not move
==============================

A contractive autoencoder is fined for how much its code changes with the row. How far noise moves the codes of
held-out digits, as a share of their own variance, against how well the digits are rebuilt, for growing weights of the
fine.
"""

# %%
# A weight of 0 is AutoEncoder.

import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skae import ContractiveAutoEncoder

QUICK = {"max_iter": 3} if os.environ.get("SKAE_EXAMPLES_QUICK") else {}

X_train, X_test = train_test_split(load_digits().data / 16, random_state=0)
noisy = X_test + 0.1 * np.random.RandomState(0).standard_normal(X_test.shape)


def moved(model):
    """Mean squared movement of the codes under noise, as a share of their variance."""
    codes = model.transform(X_test)
    return np.square(model.transform(noisy) - codes).sum() / np.square(codes - codes.mean(axis=0)).sum()


weights = (0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
models = [ContractiveAutoEncoder(10, contraction=weight, random_state=0, **QUICK).fit(X_train) for weight in weights]
movements, scores = [moved(model) for model in models], [model.score(X_test) for model in models]
for weight, movement, score in zip(weights, movements, scores, strict=True):
    print(f"contraction={weight:<5} moved {movement:.4f}, R2 {score:.3f}")

# %%
# Down and to the right is better.

figure, axis = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
axis.plot(scores, movements, "o-", color="C0")
for weight, movement, score in zip(weights, movements, scores, strict=True):
    axis.annotate("AutoEncoder" if weight == 0 else f"{weight}", (score, movement), (6, 4), textcoords="offset points")
axis.set(
    title="ContractiveAutoEncoder(10) on digits, by contraction",
    xlabel="R2 of held-out rows",
    ylabel="movement by noise, share of code variance",
    yscale="log",
)
axis.margins(x=0.15)
figure.savefig("contractive.png", dpi=120)
