"""
Digits on demand, and what a digit would have been
==================================================

A conditional VAE is told which digit a row is, and codes the rest: slant, width, weight of the stroke. It draws a digit
that is asked for, and redraws one as another in the same hand.
"""

# %%
# The class is one more column of X.

import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from skae import ConditionalVAE

QUICK = {"max_iter": 3} if os.environ.get("SKAE_EXAMPLES_QUICK") else {}

pixels, digit = load_digits(return_X_y=True)
X = np.column_stack([pixels / 16, digit])
model = ConditionalVAE(4, condition_features=[64], categorical_features=[64], random_state=0, **QUICK).fit(X)

# %%
# Are they what was asked for? A classifier that was trained on real digits says.

wanted = np.repeat(np.arange(10), 100)
drawn = model.sample(1000, condition=wanted[:, None], random_state=0)
right = SVC(C=10).fit(X[:, :64], digit).predict(drawn[:, :64]) == wanted
print(f"drawn digits that are recognized as what was asked for: {right.mean():.1%}")

# %%
# On the left draws of each class. On the right a digit of the data in each row (first column), and what it would have
# been as 0 to 9: its own code, decoded under each class.

draws = [model.sample(12, condition=[c], random_state=1)[:, :64] for c in range(10)]
chosen = [np.flatnonzero(digit == c)[7] for c in range(10)]
codes = model.transform(X[chosen])
others = [model.inverse_transform(codes, condition=[c])[:, :64] for c in range(10)]


def tiled(rows):
    """A grid of pictures, shape (rows, columns, 64), as one."""
    grid = np.pad(np.asarray(rows).reshape(len(rows), -1, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)))
    return grid.transpose(0, 2, 1, 3).reshape(10 * len(rows), -1)


figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5.6), width_ratios=(12, 11), layout="constrained")
left.imshow(tiled(draws), cmap="gray_r", vmin=0, vmax=1)
left.set(title="drawn, one class in each row", xticks=[], yticks=[])
right.imshow(tiled(np.stack([X[chosen, :64], *others], axis=1)), cmap="gray_r", vmin=0, vmax=1)
right.axvline(9.5, color="C3")
right.set(title="a real digit | the same code as 0, 1, ... 9", xticks=[], yticks=[])
figure.savefig("conditional.png", dpi=120)
