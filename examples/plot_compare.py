"""
PCA and three autoencoders side by side
=======================================

Digits (64 pixels) and breast cancer (30 measurements) reduced to two components: how well are rows that were held out
reconstructed, are neighbours kept, does the nearest neighbour on the map have the same class, and what does it cost?
"""

# %%
# Every method is the same step of the same pipeline. Pictures come divided by their maximum, columns of the table are
# standardized.

import os
import time
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from sklearn.callback import ProgressBar
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import trustworthiness
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import VAE, AutoEncoder, DenoisingAutoEncoder

QUICK = {"max_iter": 3} if os.environ.get("SKAE_EXAMPLES_QUICK") else {}

methods = {
    "PCA": partial(PCA, random_state=0),
    "AutoEncoder": partial(AutoEncoder, random_state=0, **QUICK),
    "DenoisingAutoEncoder": partial(DenoisingAutoEncoder, random_state=0, **QUICK),
    "VAE": partial(VAE, random_state=0, **QUICK),
}
data = {
    "digits": (load_digits().data / 16, load_digits().target, "passthrough"),
    "breast cancer": (*load_breast_cancer(return_X_y=True), StandardScaler()),
}

# %%
# A row of the table for each method: R2 of reconstructing the held-out rows in the pipeline's scaled units,
# trustworthiness of the 5 neighbours on the map, accuracy of the nearest training neighbour, and seconds.

header = f"{'':22}{'held-out R2':>12}{'trustworthiness':>17}{'1-NN accuracy':>15}{'fit, s':>9}{'transform, s':>14}"
fitted = {}
for name, (X, y, scaler) in data.items():
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
    print(f"\n{name}: {len(X_train)} training rows, {X.shape[1]} features, 2 components\n{header}")
    for method, make in methods.items():
        pipeline = make_pipeline(scaler, make(2))
        if method != "PCA":  # PCA has no epochs to show
            pipeline.set_callbacks(ProgressBar(max_propagation_depth=None))
        start = time.perf_counter()
        pipeline.fit(X_train)
        fit_time = time.perf_counter() - start
        start = time.perf_counter()
        Z = pipeline.transform(X_test)
        transform_time = time.perf_counter() - start
        scaled = pipeline[:-1].transform(X_test)
        r2 = r2_score(scaled, pipeline[-1].inverse_transform(Z), multioutput="variance_weighted")
        neighbour = KNeighborsClassifier(1).fit(pipeline.transform(X_train), y_train)
        print(
            f"{method:22}{r2:12.3f}{trustworthiness(scaled, Z):17.3f}{neighbour.score(Z, y_test):15.3f}"
            f"{fit_time:9.2f}{transform_time:14.4f}"
        )
        fitted[name, method] = pipeline, X_test, y_test, Z

# %%
# How many components a classifier wants is a question for a grid search, as with PCA.

X, y, scaler = data["breast cancer"]
search = GridSearchCV(
    make_pipeline(scaler, methods["AutoEncoder"](), LogisticRegression()),
    {"autoencoder__n_components": [2, 5, 10]},
    cv=3,
)
search.set_callbacks(ProgressBar(max_propagation_depth=0))
search.fit(X, y)
print(f"\nGridSearchCV on breast cancer: {search.best_params_}, accuracy {search.best_score_:.3f}")

# %%
# The maps of the held-out digits, and five of them as each method rebuilds them from two numbers.

figure, axes = plt.subplots(2, 4, figsize=(13, 6.5), layout="constrained", height_ratios=[3, 1.2])
for column, method in enumerate(methods):
    pipeline, X_test, y_test, Z = fitted["digits", method]
    above, below = axes[:, column]
    above.set(title=method, xlabel="component 1", ylabel="component 2")
    points = above.scatter(*Z.T, c=y_test, cmap="tab10", vmin=-0.5, vmax=9.5, s=8)
    rebuilt = pipeline.inverse_transform(Z[:5]).reshape(5, 8, 8)
    originals = X_test[:5].reshape(5, 8, 8)
    below.imshow(np.vstack([np.hstack(originals), np.hstack(rebuilt)]), cmap="gray_r", vmin=0, vmax=1)
    below.set(title="held-out digits, and rebuilt", xticks=[], yticks=[])
figure.colorbar(points, ax=axes[0], ticks=range(10), label="digit")
figure.savefig("compare.png", dpi=120)
print("Figure: compare.png")
