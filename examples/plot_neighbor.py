"""
A map that can be read backwards
================================

NeighborAutoEncoder draws digits as UMAP does, near ones together, and its decoder tells what any place of the map would
be: also where no digit is.
"""

# %%
# Three maps of the digits, fitted to three quarters of them. UMAP is drawn if umap-learn is there.

import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from skae import NeighborAutoEncoder

QUICK = {"max_iter": 2, "hidden_layer_sizes": 32} if os.environ.get("SKAE_EXAMPLES_QUICK") else {}

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, random_state=0, stratify=y)
methods = {"PCA": PCA(2), "UMAP": None, "NeighborAutoEncoder": NeighborAutoEncoder(random_state=0, **QUICK)}
try:
    if not QUICK:
        from umap import UMAP

        methods["UMAP"] = UMAP(random_state=0, n_jobs=1)
except ImportError:
    print("pip install umap-learn draws UMAP's map too")
maps = {}
for name, method in methods.items():
    if method is not None:
        train, test = method.fit_transform(X_train), method.transform(X_test)
        accuracy = KNeighborsClassifier().fit(train, y_train).score(test, y_test)
        maps[name] = train, f"{name}: {accuracy:.3f}"
        print(f"{name:20} accuracy of 5 nearest neighbours in the map, held-out digits: {accuracy:.3f}")

# %%
# What the decoder sees on a grid of its map, and how near the next digit is: the pale ones stand where there is none.

model, n = methods["NeighborAutoEncoder"], 22
codes = maps["NeighborAutoEncoder"][0]
least, most = codes.min(axis=0), codes.max(axis=0)
places = np.stack(np.meshgrid(*np.linspace(least, most, n).T, indexing="xy"), axis=-1).reshape(-1, 2)
seen = model.inverse_transform(places).clip(0, 1).reshape(n, n, 8, 8)
distances = np.sqrt(np.square(places[:, None] - codes).sum(axis=-1)).min(axis=1).reshape(n, n)
strength = np.where(distances < np.ptp(codes, axis=0).mean() / n, 1.0, 0.35)
grid = np.vstack([np.hstack(row) for row in (seen * strength[..., None, None])[::-1]])

figure, axes = plt.subplots(1, len(maps) + 1, figsize=(4.2 * (len(maps) + 1), 4.4), layout="constrained")
for axis, (points, title) in zip(axes, maps.values(), strict=False):
    axis.scatter(*points.T, c=y_train, cmap="tab10", vmin=-0.5, vmax=9.5, s=5, linewidths=0)
    for digit in range(10):
        x, height = np.median(points[y_train == digit], axis=0)
        axis.text(
            x, height, digit, weight="bold", ha="center", va="center", bbox=dict(fc="white", ec="none", alpha=0.7)
        )
    axis.set(title=title, xticks=[], yticks=[])
axes[-1].imshow(grid, cmap="gray_r", extent=(least[0], most[0], least[1], most[1]), aspect="auto", vmin=0, vmax=1)
axes[-1].set(title="what its decoder sees there", xticks=[], yticks=[])
figure.savefig("neighbor.png", dpi=120)
