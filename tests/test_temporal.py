"""TDVAE: its terms against closed forms, what follows windows, and which windows validate."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import TimeSeriesSplit
from sklearn.utils._param_validation import InvalidParameterError

import skae
from skae import TDVAE, windows
from skae._losses import normal_kl
from skae._temporal_bound import terms
from skae._temporal_network import Normal
from skae._windows import n_overlapping

QUICK = dict(hidden_layer_sizes=8, max_iter=2, random_state=0)
# z_t = A z_{t-1} + N(0, Q), x_t = z_t + N(0, R), believed from the first step on with the variance it settles at.
A, Q, R = 0.9, 0.3, 0.5


def stationary(a=A, q=Q, r=R):
    """Filtered variance of the scalar system above, and the variance of the state before its observation."""
    filtered = 1.0
    for _ in range(500):
        predicted = a**2 * filtered + q
        filtered = predicted * r / (predicted + r)
    return filtered, predicted


def series(n, seed=0):
    rng = np.random.RandomState(seed)
    return np.sin(0.5 * np.arange(n)) + 0.1 * rng.standard_normal(n)


@pytest.fixture(scope="module")
def kalman():
    """TDVAE with the weights at which it is the Kalman filter of the scalar system; windows; means of the beliefs."""
    rng, n_steps = np.random.RandomState(0), 6
    filtered, predicted = stationary()
    z = math.sqrt(filtered) * rng.standard_normal(50)
    X = np.empty((50, n_steps))
    for t in range(n_steps):
        z = A * z + math.sqrt(Q) * rng.standard_normal(50)
        X[:, t] = z + math.sqrt(R) * rng.standard_normal(50)
    model = TDVAE(1, **QUICK | {"hidden_layer_sizes": ()}).fit(X)
    model.mean_, model.scale_ = model._scaler_.mean_, model._scaler_.scale_ = np.zeros(n_steps), 1.0
    module, gain = model.module_, predicted / (predicted + R)
    smoother = A * filtered / predicted
    jumps = torch.arange(1, n_steps + 1)
    with torch.no_grad():
        for t in range(n_steps + 1):
            for s in range(t):
                module.filter.weight[t, s] = gain * (A * (1 - gain)) ** (t - 1 - s)
        module.filter.bias.zero_()
        module.log_var.fill_(math.log(filtered))
        module.transition.weight.copy_(A ** jumps[:, None, None])
        module.transition.bias.zero_()
        module.transition.log_var.copy_((Q * (1 - A ** (2 * jumps)) / (1 - A**2)).log()[:, None])
        n_jumps = len(module.smoothing.bias)
        module.smoothing.weight.copy_(torch.tensor([smoother, 1 - smoother * A, 0.0]).expand(n_jumps, 1, 3))
        module.smoothing.bias.zero_()
        module.smoothing.log_var.fill_(math.log(filtered * (1 - smoother * A)))
        module.decoder.set_linear(torch.ones(1, 1), torch.zeros(1))
        module.noise.fill_(math.log(R - 1e-6) / module.NOISE_STEP)
        module.code.fill_(1.0)
    means = np.zeros((50, n_steps + 1))
    for t in range(n_steps):
        means[:, t + 1] = A * means[:, t] + gain * (X[:, t] - A * means[:, t])
    return model, X, means


def log_normal(x, mean, variance):
    return -0.5 * (np.log(2 * math.pi * variance) + np.square(x - mean) / variance)


# The objective.


def test_divergence_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    mean, log_var, other, other_log_var = torch.randn(4, 7, 3, generator=generator, dtype=torch.float64)
    p, q = (torch.distributions.Normal(m, (0.5 * v).exp()) for m, v in ((mean, log_var), (other, other_log_var)))
    expected = torch.distributions.kl_divergence(p, q).sum(-1)
    torch.testing.assert_close(normal_kl(mean, log_var, other, other_log_var), expected)


def test_beliefs_are_those_of_the_kalman_filter(kalman):
    model, X, means = kalman
    beliefs = model.module_.beliefs(torch.from_numpy(X))
    np.testing.assert_allclose(beliefs.mean[..., 0].detach(), means, atol=1e-6)
    np.testing.assert_allclose(model.transform(X)[:, 0], means[:, -1], atol=1e-6)


def test_each_term_has_the_mean_of_its_closed_form(kalman):
    model, X, means = kalman
    filtered, predicted = stationary()
    smoother = A * filtered / predicted
    left = filtered * (1 - smoother * A)
    n = 40_000
    x, t = torch.from_numpy(X[:1]).expand(n, -1), 4
    with torch.no_grad():
        torch.manual_seed(0)
        after = torch.full((n, 1), t)
        found = terms(model.module_, x, model.module_.beliefs(x), after, torch.ones_like(after))
    surprise = (means[0, t] - A * means[0, t - 1]) ** 2 + filtered  # mean square of z2 - A m1
    expected = (
        log_normal(X[0, t - 1], means[0, t], R) - filtered / (2 * R),
        -0.5 * (math.log(2 * math.pi * Q) + ((1 - A * smoother) ** 2 * surprise + A**2 * left) / Q),
        -0.5 * (math.log(2 * math.pi * filtered) + 1),
        0.5 * ((smoother**2 * surprise + left) / filtered - 1 - math.log(left / filtered)),
    )
    for term, value in zip(found, expected, strict=True):
        assert abs(float(term.mean()) - value) < 5 * float(term.std()) / math.sqrt(n)
    bound = found[0] + found[1] - found[2] - found[3]
    exact = log_normal(X[0, t - 1], A * means[0, t - 1], predicted + R)
    assert abs(float(bound.mean()) - exact) < 5 * float(bound.std()) / math.sqrt(n)


def test_the_bound_of_a_jump_is_below_the_exact_log_likelihood(kalman):
    model, X, means = kalman
    filtered, _ = stationary()
    n, t, jump = 20_000, 5, 3
    x, after = torch.from_numpy(X[:1]).expand(n, -1), torch.full((n, 1), t)
    with torch.no_grad():
        torch.manual_seed(0)
        found = terms(model.module_, x, model.module_.beliefs(x), after, torch.full_like(after, jump))
    bound = (found[0] + found[1] - found[2] - found[3]).mean()
    variance = A ** (2 * jump) * filtered + Q * (1 - A ** (2 * jump)) / (1 - A**2) + R
    assert float(bound) < log_normal(X[0, t - 1], A**jump * means[0, t - jump], variance)


@pytest.mark.parametrize("n_draws", [1, 7])
def test_the_score_of_an_exact_model_is_the_log_likelihood_whatever_is_drawn(kalman, n_draws):
    model, X, means = kalman
    exact = log_normal(X, A * means[:, :-1], stationary()[1] + R).sum(axis=1)
    np.testing.assert_allclose(model.score_samples(X, n_draws=n_draws), exact, atol=1e-5)
    assert model.score(X) == pytest.approx(exact.mean(), abs=1e-5)


def test_the_score_is_the_logarithm_of_a_density():
    model = TDVAE(2, **QUICK).fit(windows(series(100), 1))
    grid = np.linspace(-6, 6, 201)[:, None]
    mass = np.exp(model.score_samples(grid, n_draws=200)).sum() * 0.06
    assert mass == pytest.approx(1, abs=0.02)


def test_the_bound_rises_with_the_draws_and_is_in_the_units_of_X():
    X = windows(series(150), 8)
    model = TDVAE(2, **QUICK).fit(X)
    scores = [model.score_samples(X, n_draws=n).mean() for n in (1, 5, 25)]
    assert (np.diff(scores) > -0.01).all()  # of a linear model the bound is exact for one draw
    larger = TDVAE(2, **QUICK).fit(4 * X)  # a power of two: the network sees the same bits
    np.testing.assert_allclose(larger.score_samples(4 * X), model.score_samples(X) - 8 * math.log(4))
    np.testing.assert_allclose(larger.noise_variance_, 16 * model.noise_variance_)


def test_no_gradient_of_the_window_decoder_reaches_the_codes():
    X = windows(series(100), 8)
    model = TDVAE(2, **QUICK).fit(X)
    module = model.module_.requires_grad_(True).train()
    x = torch.from_numpy(X)
    torch.manual_seed(0)
    model._loss(module, x).sum().backward()
    before = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    assert "window_decoder.linear.bias" in before
    assert all(bool(g.isfinite().all()) for g in before.values())
    module.zero_grad()
    with torch.no_grad():
        module.window_decoder.linear.bias += 1
    torch.manual_seed(0)
    model._loss(module, x).sum().backward()
    changed = {name for name, p in module.named_parameters() if not torch.equal(p.grad, before[name])}
    assert changed
    assert all(name.startswith("window_decoder") for name in changed)


def test_a_belief_does_not_look_ahead():
    X = windows(series(100), 8)
    module = TDVAE(2, **QUICK).fit(X).module_
    with torch.no_grad():
        module.head.weight.normal_()  # the fit may have kept the linear model
    x = torch.from_numpy(X)
    changed = x.clone()
    changed[:, 5:] += 1
    before, after = module.beliefs(x), module.beliefs(changed)
    for first, second in ((before.mean, after.mean), (before.log_var, after.log_var), (before.memory, after.memory)):
        assert torch.equal(first[:, :6], second[:, :6])
        assert not torch.equal(first[:, 6], second[:, 6])


# What follows a window.


@pytest.mark.parametrize(("jumpy", "tolerance"), [(True, 0.02), (False, 0.15)])
def test_predictions_of_an_exact_model_are_those_of_the_kalman_filter(kalman, jumpy, tolerance):
    model, X, means = kalman
    jumps = np.arange(1, 15)  # beyond the window too
    np.testing.assert_allclose(model.forecast(X, 14, jumpy), means[:, -1:] * A**jumps, atol=tolerance)
    np.testing.assert_array_equal(model.forecast(X, 1, jumpy), model.forecast(X))


def test_futures_of_an_exact_model_have_the_moments_of_the_process(kalman):
    model, X, means = kalman
    futures = model.sample_futures(X[:2], n_steps=4, n_draws=20_000, random_state=0)
    assert futures.shape == (20_000, 2, 4)
    filtered, _ = stationary()
    jumps = np.arange(1, 5)
    state = A ** (2 * jumps) * filtered + Q * (1 - A ** (2 * jumps)) / (1 - A**2)
    np.testing.assert_allclose(futures.mean(axis=0), means[:2, -1:] * A**jumps, atol=0.03)
    np.testing.assert_allclose(futures.var(axis=0), np.tile(state + R, (2, 1)), rtol=0.05)
    covariance = np.cov(futures[:, 0, 0], futures[:, 0, 3])[0, 1]
    assert covariance == pytest.approx(A**3 * state[0], rel=0.1)
    drawn = model.sample(20_000, random_state=0)
    variance = filtered * A ** (2 * np.arange(1, 7)) + Q * (1 - A ** (2 * np.arange(1, 7))) / (1 - A**2) + R
    np.testing.assert_allclose(drawn.var(axis=0), variance, rtol=0.05)


def test_futures_depend_on_the_seed_alone():
    X = windows(np.column_stack([series(100), series(100, 1)]), 6).astype(np.float32)
    model = TDVAE(3, n_channels=2, **QUICK).fit(X)
    assert model.n_steps_ == 6
    assert model.noise_variance_.shape == (2,)
    first, second, other = (model.sample_futures(X, 3, 2, random_state=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (2, len(X), 6)
    assert first.dtype == np.float32
    assert not np.array_equal(first, other)
    predicted = model.forecast(X, 9)
    assert predicted.shape == (len(X), 18)
    np.testing.assert_allclose(model.forecast(X[:3], 2), predicted[:3, :4], atol=1e-5)
    assert model.sample(4, random_state=0).shape == (4, 12)


def test_numbers_that_are_not_positive_integers(kalman):
    model, X, _ = kalman
    for bad in (0, 1.5, True):
        with pytest.raises(ValueError, match="n_steps must be an integer of at least 1"):
            model.forecast(X, n_steps=bad)
        with pytest.raises(ValueError, match="n_steps must be an integer of at least 1"):
            model.sample_futures(X, n_steps=bad)
        with pytest.raises(ValueError, match="n_draws must be an integer of at least 1"):
            model.score_samples(X, n_draws=bad)


def test_a_noisy_sine_is_predicted():
    X = windows(series(300), 12)
    future = X[:, 8:]
    model = TDVAE(2, **QUICK).fit(X[:150, :8])
    left = np.square(model.forecast(X[180:, :8], 4) - future[180:]).mean(axis=0)
    assert (left < 0.03).all()  # the noise is 0.01, the variance of the series 0.5


@pytest.mark.slow
def test_a_series_that_no_linear_model_predicts():
    x, rng = [0.3], np.random.RandomState(0)
    for _ in range(700):
        x.append(4 * x[-1] * (1 - x[-1]))  # the logistic map: neighbouring numbers are not correlated
    X = windows(np.array(x) + 0.01 * rng.standard_normal(len(x)), 5)
    past, future = X[:, :4], X[:, 4:]
    model = TDVAE(2, hidden_layer_sizes=32, max_iter=60, random_state=0).fit(past[:500])
    assert model.best_iter_ > 0
    assert np.square(model.forecast(past[510:]) - future[510:]).mean() < 0.5 * future.var()  # linear: all of it


# Windows, and which of them validate.


def test_windows_of_frames_and_with_steps():
    frame = pd.DataFrame({"a": np.arange(6), "b": np.arange(6) + 0.5})
    X = windows(frame, 3, step=2)
    np.testing.assert_array_equal(X, [[0, 0.5, 1, 1.5, 2, 2.5], [2, 2.5, 3, 3.5, 4, 4.5]])
    assert windows(np.arange(5, dtype=np.float32), 5).shape == (1, 5)
    assert windows(np.arange(5, dtype=np.float32), 2).dtype == np.float32
    assert np.isnan(windows([1.0, np.nan, 3.0], 2)[0, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], 3), "The series has 2 steps, fewer than a window of n_steps=3"),
        (([1.0, 2.0], 0), "n_steps must be an integer of at least 1, got 0"),
        (([1.0, 2.0], 1, 0.5), "step must be an integer of at least 1, got 0.5"),
        (([1.0, np.inf], 1), "infinity"),
        ((np.ones((2, 2, 2)), 1), "Found array with dim 3"),
    ],
)
def test_bad_series(arguments, message):
    with pytest.raises(ValueError, match=message):
        windows(*arguments)


@pytest.mark.parametrize(("step", "n_shared"), [(1, 7), (3, 2), (7, 1), (8, 0), (9, 0)])
def test_windows_that_share_steps_are_recognized(step, n_shared):
    both = np.column_stack([series(200), series(200, 1)])
    both[50, 0] = np.nan
    assert n_overlapping(windows(both, 8, step), 2) == n_shared
    assert n_overlapping(windows(both, 8, step)[:1], 2) == 0
    constant_edges = np.pad(np.random.RandomState(0).standard_normal((50, 3)), ((0, 0), (1, 1)))
    assert n_overlapping(constant_edges, 1) == 0


def test_validation_windows_share_no_step_with_training_windows():
    X, model = windows(series(300), 10), TDVAE(hidden_layer_sizes=())
    ((training, validation),) = model._splits(X, None, None)
    assert len(validation) == 50
    assert validation[-1] == len(X) - 1
    assert validation[0] - training[-1] == 10
    assert model._splits(windows(series(300), 10, 10), None, None) is None
    assert model._splits(X, None, np.arange(len(X))) is None  # groups decide
    for cautious in (TDVAE(warm_start=True), TDVAE(validation_fraction=0.2)):
        with pytest.warns(UserWarning, match="Windows of X overlap"):
            assert cautious._splits(X, None, None) is None
    assert len(TDVAE(1, cv=TimeSeriesSplit(2, gap=9), **QUICK)._splits(X, None, None)) == 2


def test_columns_must_be_whole_steps():
    with pytest.raises(InvalidParameterError, match="n_channels=4 does not divide the 6 columns of X"):
        TDVAE(n_channels=4).fit(np.random.RandomState(0).standard_normal((20, 6)))
    with pytest.raises(ValueError, match="could not convert string to float"):
        TDVAE(**QUICK).fit(pd.DataFrame({"a": ["x", "y"] * 10, "b": np.arange(20.0)}))


def test_missing_steps_are_left_out():
    rng = np.random.RandomState(0)
    X = windows(series(200), 10)
    holes = np.where(rng.rand(*X.shape) < 0.2, np.nan, X)
    model = TDVAE(2, **QUICK | {"max_iter": 5}).fit(holes)
    assert model.module_.fills
    left = np.square(model.forecast(holes[:-1]) - X[1:, -1:]).mean()
    assert left < 0.1  # of 0.5
    assert np.isfinite(model.score_samples(holes)).all()
    empty = np.full((1, 10), np.nan)
    np.testing.assert_allclose(model.score_samples(empty, n_draws=500), 0, atol=2)  # nothing was observed
    complete = TDVAE(2, **QUICK).fit(X)
    assert np.isfinite(complete.score_samples(holes)).all()


def test_cells_missing_only_after_a_complete_fit():
    X = windows(series(200), 6)
    holes = np.where(np.random.RandomState(1).rand(*X.shape) < 0.2, np.nan, X)
    model = TDVAE(2, **QUICK).fit(X)
    assert np.isfinite(model.score_samples(holes)).all()
    later = holes.copy()
    later[:, 4:] = np.nan  # what comes later says nothing of the beliefs before
    beliefs = [model.module_.beliefs(model._scaler_.transform(torch.from_numpy(part))).mean for part in (holes, later)]
    torch.testing.assert_close(beliefs[0][:, :5], beliefs[1][:, :5], rtol=0, atol=0)
    assert np.isfinite(model.partial_fit(holes).transform(holes)).all()
    again = TDVAE(2, **QUICK, warm_start=True, validation_fraction=0.2)
    with pytest.warns(UserWarning, match="overlap"):
        assert np.isfinite(again.fit(X).fit(holes).score(holes))


def test_windows_without_weight_do_not_validate():
    X, weights = windows(series(300), 6), np.ones(295)
    weights[-60:] = 0
    train, validation = TDVAE(2, **QUICK)._splits(X, None, None, weights)[0]
    assert validation[-1] == 234
    assert len(validation) == 50
    assert train[-1] + 5 < validation[0]
    weighted, left_out = TDVAE(2, **QUICK).fit(X, sample_weight=weights), TDVAE(2, **QUICK).fit(X[:-60])
    np.testing.assert_allclose(weighted.transform(X), left_out.transform(X), atol=1e-6)


def test_what_is_fitted_does_not_follow_parameters():
    X = windows(np.column_stack([series(100), series(100, 1)]), 4)
    model = TDVAE(2, n_channels=2, **QUICK).fit(X)
    forecast, futures = model.forecast(X, 3), model.sample_futures(X, 3, random_state=0)
    model.set_params(n_channels=1)
    np.testing.assert_array_equal(model.forecast(X, 3), forecast)
    np.testing.assert_array_equal(model.sample_futures(X, 3, random_state=0), futures)


def test_distributions_are_those_of_torch():
    torch.manual_seed(0)
    ours, theirs = [], []
    for _ in range(2):
        mean, log_var = torch.randn(5, 3).double(), torch.randn(5, 3).double()
        factor = torch.randn(3, 3).double().tril(-1) + torch.eye(3).double()
        ours.append(Normal(mean, log_var, factor))
        scale = factor * (0.5 * log_var).exp()[:, None, :]
        theirs.append(torch.distributions.MultivariateNormal(mean, scale_tril=scale))
    z = torch.randn(5, 3).double()
    torch.testing.assert_close(ours[0].log_density(z), theirs[0].log_prob(z))
    torch.testing.assert_close(ours[0].divergence_from(ours[1]), torch.distributions.kl_divergence(*theirs))


def test_it_is_a_member():
    assert "TDVAE" in skae.__all__
    assert issubclass(TDVAE, skae.BaseAutoEncoder)
