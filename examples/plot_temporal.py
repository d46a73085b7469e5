"""
Futures of a series
===================

TDVAE learns from windows of a series what a state is: whatever of the past tells of the future. From the state after a
window it draws futures, one step after another, and their spread says how far it trusts its forecast.
"""

# %%
# The first coordinate of the Lorenz system, observed with noise. A window of 16 steps is a row; the windows of the test
# come after all windows of the training.

import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from skae import TDVAE, windows

QUICK = {"max_iter": 1} if os.environ.get("SKAE_EXAMPLES_QUICK") else {"max_iter": 60}
N_STEPS, AHEAD, STEP = 16, 10, 0.1


def slope(z):
    return np.array([10 * (z[1] - z[0]), z[0] * (28 - z[2]) - z[1], z[0] * z[1] - 8 / 3 * z[2]])


rng, z, states = np.random.RandomState(0), np.array([1.0, 1.0, 25.0]), []
for t in range(10 * 1700):
    h = STEP / 10
    z = z + h * slope(z + h / 2 * slope(z))
    if t % 10 == 0 and t >= 2000:
        states.append(z[0])
series = np.array(states)[:, None]
series = StandardScaler().fit_transform(series) + 0.05 * rng.standard_normal(series.shape)

X = windows(series, N_STEPS + AHEAD)
train, test = X[:1000], X[1000 + N_STEPS + AHEAD :]
past, future = test[:, :N_STEPS], test[:, N_STEPS:]
model = TDVAE(4, random_state=0, **QUICK).fit(train[:, :N_STEPS])

# %%
# Forecasts go one step after another, and are means over draws. A linear regression of the future on the window stands
# for what a linear model can tell.

linear = RidgeCV(np.logspace(-4, 4, 17)).fit(train[:, :N_STEPS], train[:, N_STEPS:])
errors = {
    "TDVAE": np.square(model.forecast(past, AHEAD) - future).mean(axis=0),
    "linear regression": np.square(linear.predict(past) - future).mean(axis=0),
}
for name, error in errors.items():
    print(f"{name:18} mean squared error 1 step ahead {error[0]:.3f}, {AHEAD} steps {error[-1]:.3f}")

# %%
# Futures of two windows: one of the tenth with the least spread over the first four steps, one of the tenth with the
# most. Over all windows, nine of ten numbers that came should be within the band of nine of ten futures.

futures = model.sample_futures(past, AHEAD, n_draws=200, random_state=0)
low, high = np.quantile(futures, [0.05, 0.95], axis=0)
within = ((low < future) & (future < high)).mean(axis=0)
print(f"within the band: {within[0]:.2f} of what came 1 step ahead, {within[-1]:.2f} {AHEAD} steps ahead")
spread = futures[..., :4].std(axis=0).mean(axis=1)
shown = np.argsort(spread)[[len(spread) // 10, -len(spread) // 10]]
figure, axes = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
before, after = np.arange(-N_STEPS + 1, 1), np.arange(1, AHEAD + 1)
for ax, row, title in zip(axes, shown, ("futures of a window: little spread", "much spread"), strict=False):
    ax.plot(after, futures[:30, row].T, color="C0", alpha=0.15, linewidth=0.8)
    ax.fill_between(after, low[row], high[row], color="C0", alpha=0.25, label="9 of 10 futures")
    ax.plot(before, past[row], "k.-", label="window")
    ax.plot(after, future[row], "k.--", alpha=0.6, label="what came")
    ax.set(title=title, xlabel="steps", ylim=(-2.7, 2.7))
axes[1].legend(loc="lower left")
for (name, error), style in zip(errors.items(), ("-", "--"), strict=True):
    axes[2].plot(after, error, style, label=name)
axes[2].axhline(0.0025, color="grey", linestyle=":", label="noise")
axes[2].set(title="mean squared error of forecasts", xlabel="steps ahead", ylim=(0, None))
axes[2].legend()
figure.savefig("temporal.png", dpi=120)
