"""
A dictionary of strokes
=======================

A sparse autoencoder rebuilds a row from a few of many atoms. Of 8 x 8 patches of photographs the atoms become edges
of all orientations and places, as the first cells of the visual cortex see them; the axes of PCA are waves that span
the whole patch.
"""

# %%
# Patches of the two photographs that scikit-learn ships, in grey, without their mean, and whitened: neighbouring pixels
# are so alike that any method would spend itself on that.

import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.decomposition import PCA
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.metrics import r2_score

from skae import SparseAutoEncoder

QUICK = {"max_iter": 3} if os.environ.get("SKAE_EXAMPLES_QUICK") else {}

patches = [
    extract_patches_2d(picture.mean(axis=2) / 255, (8, 8), max_patches=10_000, random_state=0).reshape(-1, 64)
    for picture in load_sample_images().images
]
X = np.concatenate(patches)
X -= X.mean(axis=1, keepdims=True)
X = X[X.std(axis=1) > 0.02]  # not the sky
pca = PCA(whiten=True).fit(X)
variances = pca.explained_variance_
X = pca.transform(X) * np.sqrt(variances / (variances + 0.1 * variances.mean())) @ pca.components_

# %%
# Five of a hundred atoms for each patch, against the five axes of PCA.

model = SparseAutoEncoder(100, n_active=5, random_state=0, **QUICK).fit(X)
codes = model.transform(X)
axes = PCA(5).fit(X)
r2 = r2_score(X, axes.inverse_transform(axes.transform(X)), multioutput="variance_weighted")
print(f"active entries of a code: {(codes != 0).sum(axis=1).mean():.0f} of {codes.shape[1]}")
print(f"R2 with five atoms of a hundred: {model.score(X):.3f}; with the five leading axes of PCA: {r2:.3f}")

# %%
# The atoms that are used most, beside the axes of PCA.

used = np.argsort(-np.abs(codes).mean(axis=0) * np.linalg.norm(model.components_, axis=1))
figure, panels = plt.subplots(1, 2, figsize=(11, 5.6), layout="constrained")
for panel, atoms, title in (
    (panels[0], model.components_[used[:64]], "SparseAutoEncoder: the 64 atoms used most"),
    (panels[1], PCA().fit(X).components_, "PCA: all 64 axes"),
):
    tiles = (atoms / np.abs(atoms).max(axis=1, keepdims=True)).reshape(8, 8, 8, 8)
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=1)
    panel.imshow(tiles.transpose(0, 2, 1, 3).reshape(72, 72), cmap="gray", vmin=-1, vmax=1)
    panel.set(title=title, xticks=[], yticks=[])
figure.savefig("sparse.png", dpi=120)
