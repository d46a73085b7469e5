"""
Denoising digits
================

A denoising autoencoder learns to give back the clean row from a noisy one. Here a third of the pixels of held-out
digits is lost; PCA projects what is left onto its axes, the autoencoder has learnt what digits look like.
"""

# %%
# The noise that it is trained with, "masking", replaces an entry by the column's mean; the noise here does the same.

import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from skae import DenoisingAutoEncoder

QUICK = {"max_iter": 3} if os.environ.get("SKAE_EXAMPLES_QUICK") else {}

X = load_digits().data / 16
X_train, X_test = train_test_split(X, random_state=0)
lost = np.random.RandomState(0).random_sample(X_test.shape) < 0.33
X_noisy = np.where(lost, X_train.mean(axis=0), X_test)

denoisers = {
    "PCA(16)": PCA(16),
    "DenoisingAutoEncoder(16)": DenoisingAutoEncoder(16, noise="masking", noise_level=0.33, random_state=0, **QUICK),
}
pictures = {"clean": X_test, "a third lost": X_noisy}
for name, model in denoisers.items():
    model.fit(X_train)
    pictures[name] = model.inverse_transform(model.transform(X_noisy))

# %%
# The squared error of a pixel tells how much of the damage is undone.

for name, rows in pictures.items():
    print(f"{name:26} mean squared error {np.square(rows - X_test).mean():.4f}")

figure, axes = plt.subplots(len(pictures), 1, figsize=(10, 5.2), layout="constrained")
for axis, (name, rows) in zip(axes, pictures.items(), strict=True):
    axis.imshow(np.hstack(rows[:12].reshape(12, 8, 8)), cmap="gray_r", vmin=0, vmax=1)
    error = np.square(rows - X_test).mean()
    axis.set(title=f"{name}: mean squared error {error:.4f}", xticks=[], yticks=[])
figure.savefig("denoising.png", dpi=120)
