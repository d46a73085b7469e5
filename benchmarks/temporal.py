"""Prediction of a series from windows: TDVAE against Kalman filters and linear predictors.

    python benchmarks/temporal.py --sets oscillator pendulum --seeds 3

Each method sees windows of a series and predicts the next step and one further on, of windows that come after all
training windows, or of other series. Figures are, for the next step and the further one, mean squared errors from the
state (what would be observed without noise; of sunspots from the observations) as shares of the variance of the series,
the same from what was observed, and log-densities of what was observed in nats; and seconds of the processor. They are
means over seeds and, of the errors from the state, their standard deviation. "Kalman filter" is the ARMA model in
state-space form of the lowest AIC, fitted by maximum likelihood with statsmodels; "exact" the filter with the
parameters that made the series; "TDVAE" goes to the further horizon one step after another, "TDVAE, one jump" at once
(its seconds are without the fit); "window" a ridge regression of the future on the window. The last two are ridge
regressions on codes: "VAE of steps" on those of all steps of the window, each encoded alone by a VAE of single
observations, "VAE of windows" on those of a VAE of the windows.

Sets: oscillator (position and velocity, damped and driven by noise, of which the position is seen with noise, as the
noisy harmonic oscillator of Gregor et al. 2019, section 5.2, with constants of our own), frequencies (sines with noise,
each row with a frequency and an amplitude of its own), pendulum (driven by noise, turning over now and then), lorenz
(the first coordinate, with noise), sunspots (yearly, 1700 to 2008, square roots; the seed changes TDVAE and VAE only).
"""

import argparse
import copy
import math
import time
import warnings
from functools import cache

import numpy as np
import torch
from sklearn.linear_model import RidgeCV

from skae import TDVAE, VAE, windows

# Steps of a window, and the further of the two horizons.
N_STEPS, FAR = 20, 10
# Windows to predict, which begin so many steps apart; of sunspots all there are, one step apart.
N_TEST, APART = 500, 2
# Densities of TDVAE are means over draws, whose logarithm is too low if they are few: of Lorenz's attractor ten steps
# ahead by 0.6 nats with 256 draws, less what 2048 give. Windows are taken so many at once.
DRAWS, AT_ONCE = 2048, 100


def oscillator(n, rng, decay=0.98, frequency=0.4, drive=0.2, noise=0.5):
    """One coordinate of a damped rotation with noise and without, and its state-space model."""
    rotation = decay * np.array(
        [[math.cos(frequency), -math.sin(frequency)], [math.sin(frequency), math.cos(frequency)]]
    )
    z, x = np.zeros(2), np.empty(n)
    for t in range(-200, n):
        z = rotation @ z + drive * rng.standard_normal(2)
        if t >= 0:
            x[t] = z[0]
    prior = np.eye(2) * drive**2 / (1 - decay**2)
    exact = rotation, np.array([[1.0, 0.0]]), drive**2 * np.eye(2), noise**2 * np.eye(1), prior
    return x + noise * rng.standard_normal(n), x, exact


def pendulum(n, rng, step=0.25, friction=0.05, drive=0.35, noise=0.1):
    """The sine of the angle of a pendulum that noise drives over the top now and then, with noise and without."""
    angle, velocity, x, fine = 0.0, 1.0, np.empty(n), 10
    h = step / fine
    for t in range(-200, n):
        for _ in range(fine):
            velocity += h * (-math.sin(angle) - friction * velocity) + drive * math.sqrt(h) * rng.standard_normal()
            angle += h * velocity
        if t >= 0:
            x[t] = math.sin(angle)
    return x + noise * rng.standard_normal(n), x


def lorenz(n, rng, step=0.1, noise=0.05):
    """The first coordinate of the Lorenz system, divided by 8, with noise and without."""
    z, x, fine = np.array([1.0, 1.0, 25.0]) + rng.standard_normal(3), np.empty(n), 20
    h = step / fine

    def slope(z):
        return np.array([10 * (z[1] - z[0]), z[0] * (28 - z[2]) - z[1], z[0] * z[1] - 8 / 3 * z[2]])

    for t in range(-200, n):
        for _ in range(fine):
            z = z + h * slope(z + h / 2 * slope(z))
        if t >= 0:
            x[t] = z[0] / 8
    return x + noise * rng.standard_normal(n), x


def frequencies(n, rng, length, noise=0.3):
    """Series of their own amplitude, phase and frequency, as rows, with noise and without."""
    frequency, phase = rng.uniform(0.2, 1.2, (n, 1)), rng.uniform(0, 2 * math.pi, (n, 1))
    clean = rng.uniform(0.5, 1.5, (n, 1)) * np.sin(frequency * np.arange(length) + phase)
    return clean + noise * rng.standard_normal(clean.shape), clean


def sunspots():
    from statsmodels.datasets import sunspots

    return np.sqrt(sunspots.load_pandas().data["SUNACTIVITY"].to_numpy())


def load(name, seed, n_train):
    """Training rows and test rows, each a window and its future, the test rows without noise, and the exact model.

    There is such a model of the oscillator only.
    """
    rng, exact, cut = np.random.RandomState(seed), None, N_STEPS + FAR
    if name == "frequencies":
        return frequencies(n_train, rng, cut)[0], *frequencies(N_TEST, rng, cut), exact
    n = n_train + APART * N_TEST + 2 * cut
    if name == "oscillator":
        series, clean, exact = oscillator(n, rng)
    elif name == "sunspots":
        series, n_train = sunspots(), 200
        clean = series
    else:
        series, clean = {"pendulum": pendulum, "lorenz": lorenz}[name](n, rng)
    n_train += cut
    if exact is None:
        mean, scale = series[:n_train].mean(), series[:n_train].std()
        series, clean = (series - mean) / scale, (clean - mean) / scale
    # the first windows of the test begin where the training ends
    apart = 1 if name == "sunspots" else APART
    return windows(series[:n_train], cut), *(windows(part[n_train:], cut, apart) for part in (series, clean)), exact


class Kalman:
    """Means and variances of what follows windows, by a state-space model (A, H, Q, R, prior covariance)."""

    def __init__(self, A, H, Q, R, prior):
        self.A, self.H, self.Q, self.R, self.prior = A, H, Q, R, prior

    def predict(self, X, n_ahead):
        mean, covariance = np.zeros((len(X), len(self.A))), self.prior
        for x in np.split(X, X.shape[1] // len(self.H), axis=1):
            gain = covariance @ self.H.T @ np.linalg.inv(self.H @ covariance @ self.H.T + self.R)
            mean = mean + (x - mean @ self.H.T) @ gain.T
            covariance = covariance - gain @ self.H @ covariance
            mean, covariance = mean @ self.A.T, self.A @ covariance @ self.A.T + self.Q
        futures = []
        for _ in range(n_ahead):
            futures.append((mean @ self.H.T, self.H @ covariance @ self.H.T + self.R))
            mean, covariance = mean @ self.A.T, self.A @ covariance @ self.A.T + self.Q
        return futures


def fitted_arma(rows):
    """The ARMA model of the lowest AIC, of rows that are separated by gaps."""
    from scipy.linalg import solve_discrete_lyapunov
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    series, best = np.concatenate([np.append(row, np.full(60, np.nan)) for row in rows]), None
    for order in ((1, 0, 1), (2, 0, 1), (2, 0, 2), (3, 0, 2), (4, 0, 3), (6, 0, 0), (9, 0, 0)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = SARIMAX(series, order=order).fit(disp=0, maxiter=200)
        best = found if best is None or found.aic < best.aic else best
    model = best.model.ssm
    drive = model["selection"] @ model["state_cov"] @ model["selection"].T
    prior = solve_discrete_lyapunov(model["transition"], drive)
    return Kalman(model["transition"], model["design"], drive, 1e-9 * np.eye(1), prior)


def gaussian(x, mean, covariance):
    d = x - mean
    _, log_determinant = np.linalg.slogdet(2 * math.pi * covariance)
    return -0.5 * (np.einsum("ni,ij,nj->n", d, np.linalg.inv(covariance), d) + log_determinant)


def by_regression(inputs, y, test_inputs, y_test):
    model = RidgeCV(np.logspace(-4, 4, 17)).fit(inputs, y.ravel())
    left, mean = y.ravel() - model.predict(inputs), model.predict(test_inputs)[:, None]
    variance = left @ left / max(len(left) - inputs.shape[1] - 1, 1)
    return mean, gaussian(y_test, mean, variance * np.eye(1))


@torch.inference_mode()
def log_density(model, X, jumps, y):
    """Log-density of what is observed after jumps from each window: mean over draws of the states."""
    module = copy.deepcopy(model.module_).float()
    beliefs = module.beliefs(model._seen(torch.from_numpy(X)).float())
    draws = torch.Generator().manual_seed(0)
    shape = DRAWS, len(X), model.n_components_
    z = beliefs.last().draw(torch.randn(shape, generator=draws))
    for jump in jumps:
        z = module.transit(z, torch.full(shape[:-1], jump)).draw(torch.randn(shape, generator=draws))
    y_hat = model._in_units(module.observe(z))
    variance = torch.from_numpy(model.noise_variance_)
    values = -0.5 * ((torch.from_numpy(y) - y_hat).square() / variance + (2 * math.pi * variance).log()).sum(-1)
    return (values.logsumexp(0) - math.log(DRAWS)).numpy()


def log_densities(model, X, jumps, y):
    parts = (slice(i, i + AT_ONCE) for i in range(0, len(X), AT_ONCE))
    return np.concatenate([log_density(model, X[part], jumps, y[part]) for part in parts])


def measure(name, seed, methods, n_train, options):
    """Of each method the errors from the state, those from what was observed, log-densities, and seconds."""
    train, test, clean, exact = load(name, seed, n_train)
    X, X_test, jumps, results = train[:, :N_STEPS], test[:, :N_STEPS], (1, FAR), {}

    def future(rows, jump):
        return rows[:, [N_STEPS + jump - 1]]

    def filtered(model):
        futures = model.predict(X_test, FAR)
        return [(futures[j - 1][0], gaussian(future(test, j), *futures[j - 1])) for j in jumps]

    def codes_of_steps():
        steps = X.reshape(-1, 1)
        model = VAE(1, random_state=seed).fit(steps[:: max(1, len(steps) // n_train)])
        return lambda rows: model.transform(rows.reshape(-1, 1)).reshape(len(rows), -1)

    def regressed(code):
        inputs, test_inputs = code(X), code(X_test)
        return [by_regression(inputs, future(train, j), test_inputs, future(test, j)) for j in jumps]

    @cache
    def fitted():
        return TDVAE(4, random_state=seed, **options).fit(X)

    def of_tdvae(jumpy):
        forecast = fitted().forecast(X_test, FAR, jumpy)
        ways = {j: [j] if jumpy else [1] * j for j in jumps}
        return [(forecast[:, [j - 1]], log_densities(fitted(), X_test, ways[j], future(test, j))) for j in jumps]

    predictors = {
        "exact": lambda: filtered(Kalman(*exact)),
        "Kalman filter": lambda: filtered(fitted_arma(X[:100] if name == "frequencies" else [of_windows(X)])),
        "window": lambda: regressed(lambda rows: rows),
        "VAE of steps": lambda: regressed(codes_of_steps()),
        "VAE of windows": lambda: regressed(VAE(4, random_state=seed).fit(X).transform),
        "TDVAE": lambda: of_tdvae(jumpy=False),
        "TDVAE, one jump": lambda: of_tdvae(jumpy=True),
    }
    for method in methods:
        if method == "exact" and exact is None:
            continue
        begun = time.process_time()
        means, log_likelihoods = zip(*predictors[method](), strict=True)
        errors = [
            np.square(future(rows, jump) - mean).mean() / train.var()
            for rows in (clean, test)
            for jump, mean in zip(jumps, means, strict=True)
        ]
        nats = [values.mean() for values in log_likelihoods]
        results[method] = [*errors, *nats, time.process_time() - begun]
    return results


def of_windows(X):
    """The series that windows one step apart were cut from."""
    return np.concatenate([X[:, 0], X[-1, 1:]])


METHODS = ("exact", "Kalman filter", "window", "VAE of steps", "VAE of windows", "TDVAE", "TDVAE, one jump")
SETS = ("oscillator", "frequencies", "pendulum", "lorenz", "sunspots")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="*", default=SETS, choices=SETS)
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=2000, help="training windows")
    parser.add_argument("--max-iter", type=int, help="epochs of TDVAE")
    arguments = parser.parse_args()
    print(
        "| set | method | state, next | state, further | seen, next | seen, further | nats, next | nats, further | s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in arguments.sets:
        runs = [
            measure(name, seed, arguments.methods, arguments.rows, {"max_iter": arguments.max_iter})
            for seed in range(arguments.seeds)
        ]
        for method in runs[0]:
            values = np.array([run[method] for run in runs])
            mean, spread = values.mean(axis=0), values.std(axis=0)
            states = (f"{mean[i]:.3f} ({spread[i]:.3f})" for i in (0, 1))
            others = (f"{value:.3f}" for value in mean[2:6])
            print("|", " | ".join([name, method, *states, *others, f"{mean[6]:.0f}"]), "|", flush=True)


if __name__ == "__main__":
    main()
