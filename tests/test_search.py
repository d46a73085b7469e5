"""Searches whose networks train together are scikit-learn's searches, in less time."""

import importlib.util
import os
import pickle
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import sklearn
import torch
from scipy import sparse
from scipy.stats import loguniform
from sklearn.base import BaseEstimator, clone
from sklearn.callback import ScoringMonitor
from sklearn.exceptions import FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    RandomizedSearchCV,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skae
from skae import _stack, _together, _training
from skae._together import run_together

QUICK = dict(max_iter=2, batch_size=64, random_state=0)
GRID = {"n_components": [1, 2], "alpha": [0.1, 1.0], "learning_rate_init": [0.003, 0.01]}
OURS = {
    GridSearchCV: skae.BatchedGridSearchCV,
    RandomizedSearchCV: skae.BatchedRandomizedSearchCV,
    HalvingGridSearchCV: skae.BatchedHalvingGridSearchCV,
    HalvingRandomSearchCV: skae.BatchedHalvingRandomSearchCV,
}


@pytest.fixture
def stacked(monkeypatch):
    """The number of networks in each epoch that is trained as one."""
    sizes = []

    def train(epochs, original=_stack.train_stacked):
        losses = original(epochs)
        sizes.append(len(epochs))
        return losses

    monkeypatch.setattr(_stack, "train_stacked", train)
    return sizes


def fits_left():
    return [thread for thread in threading.enumerate() if isinstance(thread, _together.Fit)]


def assert_same_search(search, ours, X, **params):
    """Fit both; every key of their results is the same but for times."""
    (expected, results) = (each.fit(X, **params).cv_results_ for each in (search, ours))
    assert list(results) == list(expected)
    for key, values in expected.items():
        if key.endswith("_time"):
            assert np.isfinite(results[key]).all()
        elif values[0].__class__ is dict or values.dtype == object:
            assert list(results[key]) == list(values)
        else:
            np.testing.assert_allclose(results[key], values, rtol=0, atol=1e-6, err_msg=key)
    assert ours.best_params_ == search.best_params_
    np.testing.assert_allclose(ours.transform(X), search.transform(X), atol=1e-5)


@pytest.mark.parametrize(
    ("search", "options"),
    [
        (GridSearchCV, {"param_grid": GRID}),
        (RandomizedSearchCV, {"param_distributions": {"alpha": loguniform(0.1, 1)}, "n_iter": 5, "random_state": 0}),
        (HalvingGridSearchCV, {"param_grid": GRID, "random_state": 0, "min_resources": 60}),
        (
            HalvingRandomSearchCV,
            {"param_distributions": {"alpha": loguniform(0.1, 1)}, "n_candidates": 5, "random_state": 0}
            | {"min_resources": 60},
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_search_gives_the_results_of_scikit_learns(search, options, table, stacked):
    ours = OURS[search]
    both = (each(skae.AutoEncoder(**QUICK), cv=3, return_train_score=True, **options) for each in (search, ours))
    assert_same_search(*both, table)
    assert max(stacked) >= 10


def test_a_search_in_a_pipeline(table, stacked):
    pipeline = make_pipeline(StandardScaler(), skae.AutoEncoder(**QUICK))
    grid = {f"autoencoder__{name}": values for name, values in GRID.items()}
    both = (each(pipeline, grid, cv=3) for each in (GridSearchCV, skae.BatchedGridSearchCV))
    assert_same_search(*both, table)
    assert max(stacked) == 16  # of two folds with as many rows


def test_a_search_in_processes(table):
    model = skae.AutoEncoder(**QUICK)
    both = (each(model, GRID, cv=2, n_jobs=jobs) for each, jobs in ((GridSearchCV, 1), (skae.BatchedGridSearchCV, 2)))
    assert_same_search(*both, table)


def test_fewer_fits_at_once(table, stacked):
    model = skae.AutoEncoder(**QUICK)
    ours = skae.BatchedGridSearchCV(model, GRID, cv=2, pre_dispatch=4)
    assert_same_search(GridSearchCV(model, GRID, cv=2), ours, table)
    assert set(stacked) <= {4, 8}  # two initializations of each


class Fails(skae.AutoEncoder):
    def _loss(self, module, x):
        if module.training and self.alpha == 0.1:
            raise ValueError("candidate cannot train")
        return super()._loss(module, x)


class Counts(skae.AutoEncoder):
    def _loss(self, module, x):
        self.n_calls = getattr(self, "n_calls", 0) + module.training
        return (1 + self.n_calls) * skae.AutoEncoder._loss(self, module, x)


class Decays(skae.AutoEncoder):
    def _loss(self, module, x):
        return skae.AutoEncoder._loss(self, module, x) + getattr(self, "alpha", 1.0) * module.encode(x).square().sum(-1)


def test_a_candidate_whose_epochs_fail_leaves_the_others():
    X = np.random.RandomState(0).standard_normal((90, 5))
    searches = [S(Fails(1, **QUICK), {"alpha": [0.1, 0.3, 1.0]}, cv=3) for S in (GridSearchCV, OURS[GridSearchCV])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that fits have failed, and that their scores are not finite
        theirs, ours = (search.fit(X).cv_results_["mean_test_score"] for search in searches)
    np.testing.assert_array_equal(ours, theirs)
    assert np.isnan(ours).tolist() == [True, False, False]
    with pytest.raises(ValueError, match="candidate cannot train"):
        clone(searches[1]).set_params(error_score="raise").fit(X)


@pytest.mark.parametrize("member", [Counts, Decays])
def test_losses_that_use_more_of_the_estimator_train_alone(member, stacked):
    X = np.random.RandomState(0).standard_normal((90, 5))
    theirs, ours = (
        search(member(1, **QUICK), {"alpha": [0.1, 1.0]}, cv=3).fit(X).cv_results_["mean_test_score"]
        for search in (GridSearchCV, OURS[GridSearchCV])
    )
    np.testing.assert_array_equal(ours, theirs)
    assert not stacked


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_modes_of_the_caller_do_not_reach_the_training(mode):
    X = np.random.RandomState(0).standard_normal((90, 5))
    search = OURS[GridSearchCV](skae.AutoEncoder(1, **QUICK), {"alpha": [0.1, 1.0]}, cv=3)
    expected = clone(search).fit(X).cv_results_["mean_test_score"]
    with mode():
        found = search.fit(X).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(found, expected)


def test_folds_of_a_fit_train_together(stacked, monkeypatch):
    X = np.random.RandomState(0).standard_normal((203, 6))
    model = skae.AutoEncoder(2, cv=5, max_iter=6, random_state=0)
    codes, curve = model.fit_transform(X), model.validation_curve_
    assert set(stacked) == {4, 6}
    monkeypatch.setattr(_stack, "LEAST_NETWORKS", 1000)
    np.testing.assert_allclose(clone(model).fit_transform(X), codes, atol=1e-5)
    np.testing.assert_allclose(clone(model).fit(X).validation_curve_, curve, rtol=1e-5)


def test_unequal_lengths_and_refits_come_together_again(table, stacked):
    # the refits begin when the longest of the others has ended, and then together
    grid = {"alpha": [0.1, 1.0, 10.0], "max_iter": [2, 7]}
    model = skae.AutoEncoder(1, **QUICK)
    assert_same_search(GridSearchCV(model, grid, cv=2), skae.BatchedGridSearchCV(model, grid, cv=2), table)
    assert min(stacked) >= _stack.LEAST_NETWORKS
    assert max(stacked) == 24


# Members, and whether they train together. Several pairs of losses and optimizers step in turn: no stack does.
MEMBERS = {
    "AutoEncoder": (skae.AutoEncoder(3), True),
    "probabilities": (skae.AutoEncoder(3, loss="binary_cross_entropy"), True),
    "linear": (skae.AutoEncoder(3, hidden_layer_sizes=()), True),
    "odd widths": (skae.AutoEncoder(3, hidden_layer_sizes=(33, 17), activation="gelu"), True),
    "folds": (skae.AutoEncoder(3, cv=2), True),
    "no validation": (skae.AutoEncoder(3, early_stopping=False), True),
    "gaussian": (skae.DenoisingAutoEncoder(3), True),
    "masking": (skae.DenoisingAutoEncoder(3, noise="masking"), True),
    "salt and pepper": (skae.DenoisingAutoEncoder(3, noise="salt_and_pepper"), True),
    "swap": (skae.DenoisingAutoEncoder(3, noise="swap"), True),
    "contractive": (skae.ContractiveAutoEncoder(3), True),
    "contractive, one layer": (skae.ContractiveAutoEncoder(3, hidden_layer_sizes=20), True),
    "top-k": (skae.SparseAutoEncoder(8), True),
    "l1": (skae.SparseAutoEncoder(8, penalty="l1"), True),
    "kl": (skae.SparseAutoEncoder(8, penalty="kl"), True),
    "VAE": (skae.VAE(3), True),
    "Bernoulli": (skae.VAE(3, likelihood="bernoulli"), True),
    "vamp": (skae.VAE(3, prior="vamp"), True),
    "flow": (skae.VAE(3, prior="flow"), True),
    "free bits": (skae.VAE(3, free_bits=0.1), True),
    "draws": (skae.VAE(3, n_draws=3), True),
    "conditional": (skae.ConditionalVAE(3, condition_features=[20]), True),
    "VQVAE": (skae.VQVAE(4), True),
    "codebooks": (skae.VQVAE(4, n_codebooks=2, n_codes=5), True),
    "adversarial": (skae.AdversarialAutoEncoder(3), False),
    "windows": (skae.TDVAE(3), False),
    "neighbours": (skae.NeighborAutoEncoder(3, hidden_layer_sizes=20), False),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_networks_trained_as_one_are_those_trained_alone(name, digits, stacked):
    model, trains_together = MEMBERS[name]
    models = [
        clone(model).set_params(alpha=alpha, learning_rate_init=rate, **QUICK)
        for alpha in (0.1, 0.3)
        for rate in (0.003, 0.006)
    ]
    X = digits[:150]
    together = run_together([lambda each=each: clone(each).fit(X) for each in models])
    assert bool(stacked) == trains_together
    for each, other in zip(models, together, strict=True):
        alone = each.fit(X)
        assert other.best_iter_ == alone.best_iter_
        for key, values in alone.module_.state_dict().items():
            torch.testing.assert_close(other.module_.state_dict()[key], values, rtol=0, atol=1e-5, msg=key)


def test_weights_are_the_same_to_the_last_bit_after_many_steps(table):
    # many gradients are zero but for rounding at principal axes: any other rounding would lead elsewhere
    X = StandardScaler().fit_transform(table)
    models = [skae.AutoEncoder(2, alpha=a, **QUICK | {"max_iter": 40}) for a in (0, 0.1, 0.3, 1)]
    together = run_together([lambda each=each: clone(each).fit(X) for each in models])
    for each, other in zip(models, together, strict=True):
        torch.testing.assert_close(other.module_.state_dict(), each.fit(X).module_.state_dict(), rtol=0, atol=0)
        assert other.best_iter_ > 0


class NotAFunction(skae.AutoEncoder):
    """Its loss reads what may differ between networks trained as one."""

    def _loss(self, module, x):
        return super()._loss(module, x) + 0 * self.learning_rate_init


class Careless(skae.AutoEncoder):
    """A part of its network has no gradient."""

    def _build_module(self, *args, **options):
        module = super()._build_module(*args, **options)
        module.unused = torch.nn.Linear(2, 2)
        return module


def with_holes(X):
    return np.where(np.random.RandomState(0).random_sample(X.shape) < 0.1, np.nan, X)


@pytest.mark.parametrize(
    ("model", "prepare"),
    [
        (NotAFunction(2), np.asarray),
        (Careless(2), np.asarray),
        (skae.AutoEncoder(2), sparse.csr_array),
        (skae.AutoEncoder(2), with_holes),
    ],
    ids=["reads a rate", "without gradient", "sparse", "holes"],
)
def test_what_cannot_be_stacked_trains_alone(model, prepare, table, stacked):
    model, grid = model.set_params(**QUICK), {"learning_rate_init": [0.003, 0.006]}
    X = prepare(table)
    expected, found = (s(model, grid, cv=2).fit(X) for s in (GridSearchCV, skae.BatchedGridSearchCV))
    np.testing.assert_array_equal(found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])
    assert stacked == []


def test_parameters_of_the_loss_divide_the_grid(table, stacked):
    grid = {"noise_level": [0.0, 0.5], "alpha": [0.1, 1.0]}
    model = skae.DenoisingAutoEncoder(1, **QUICK)
    assert_same_search(GridSearchCV(model, grid, cv=2), skae.BatchedGridSearchCV(model, grid, cv=2), table)
    assert set(stacked) <= {4, 8}


def test_buffers_of_the_data_divide_no_grid_but_values_do(digits, stacked):
    # noise_variance is divided by the scale of each fold
    model, grid = skae.VAE(1, noise_variance=0.1, **QUICK), {"alpha": [0.1, 1.0]}
    assert_same_search(GridSearchCV(model, grid, cv=2), skae.BatchedGridSearchCV(model, grid, cv=2), digits[:120])
    assert stacked


@pytest.mark.parametrize("model", [skae.AutoEncoder(2, **QUICK), skae.DenoisingAutoEncoder(2, **QUICK)])
def test_each_seed_draws_its_own(model, table, stacked):
    grid = {"random_state": [0, 1], "alpha": [0.1, 1.0]}
    assert_same_search(GridSearchCV(model, grid, cv=2), skae.BatchedGridSearchCV(model, grid, cv=2), table)
    assert stacked


def test_without_a_seed(table, stacked):
    model = skae.DenoisingAutoEncoder(2, **QUICK | {"random_state": None})
    before = torch.get_rng_state()
    np.random.seed(0)
    scores = skae.BatchedGridSearchCV(model, {"alpha": [0.1, 1.0, 10.0]}, cv=2).fit(table).cv_results_
    np.random.seed(0)
    expected = GridSearchCV(model, {"alpha": [0.1, 1.0, 10.0]}, cv=2).fit(table).cv_results_
    assert max(stacked) >= 6
    np.testing.assert_allclose(scores["mean_test_score"], expected["mean_test_score"], atol=0.05)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_and_groups_are_routed(table, stacked):
    weights, groups = np.arange(200) % 3 + 1.0, np.arange(200) // 10
    model = skae.AutoEncoder(1, **QUICK)
    with sklearn.config_context(enable_metadata_routing=True):
        model.set_fit_request(sample_weight=True, groups=True).set_score_request(sample_weight=True)
        both = (s(model, {"alpha": [0.1, 1.0]}, cv=GroupKFold(3)) for s in (GridSearchCV, skae.BatchedGridSearchCV))
        assert_same_search(*both, table, sample_weight=weights, groups=groups)
    assert stacked


def test_a_candidate_that_fails(table, stacked):
    grid = {"alpha": [0.1, -1.0, 1.0]}
    model = skae.AutoEncoder(1, **QUICK)
    for search in (GridSearchCV, skae.BatchedGridSearchCV):
        with pytest.raises(ValueError, match="alpha"):
            search(model, grid, cv=2, error_score="raise").fit(table)
    with pytest.warns(FitFailedWarning, match="2 fits failed"):
        found = skae.BatchedGridSearchCV(model, grid, cv=2, error_score=-7).fit(table).cv_results_
    np.testing.assert_array_equal(found["mean_test_score"] == -7, [False, True, False])
    assert fits_left() == []
    assert stacked


@pytest.mark.filterwarnings("ignore:The loss of AutoEncoder was not finite")
def test_a_candidate_that_diverges_leaves_the_others_as_they_are(table, stacked):
    grid = {"learning_rate_init": [0.003, 1e18, 0.006]}
    model = skae.AutoEncoder(1, init="random", **QUICK)
    both = (each(model, grid, cv=2) for each in (GridSearchCV, skae.BatchedGridSearchCV))
    assert_same_search(*both, table)
    assert max(stacked) == 6


def test_callbacks_see_every_epoch(table):
    logs = []
    for search in (GridSearchCV, skae.BatchedGridSearchCV):
        monitor = ScoringMonitor(scoring={"held": lambda model, X, y: model.score(X)})
        model = skae.AutoEncoder(1, **QUICK).set_callbacks(monitor)
        search(model, {"alpha": [0.1, 1.0]}, cv=2, refit=False).fit(table)
        logs.append(sorted(row["held"] for log in _logs(monitor) for row in log.data if row["task_name"] == "epoch"))
    assert len(logs[0]) >= 4 * QUICK["max_iter"]
    np.testing.assert_allclose(logs[1], logs[0], rtol=0, atol=1e-6)


def _logs(monitor):
    logs = monitor.get_logs(select="all")
    return logs if isinstance(logs, list) else [logs]


def test_time_of_a_fit_is_its_share(table):
    search = skae.BatchedGridSearchCV(skae.AutoEncoder(**QUICK), GRID, cv=3, refit=False)
    begun = _together.perf_counter()
    search.fit(table)
    total = _together.perf_counter() - begun
    times = 3 * search.cv_results_["mean_fit_time"]
    assert (times > 0).all()
    assert times.sum() < total


def test_clone_parameters_and_pickle(table):
    search = skae.BatchedGridSearchCV(skae.AutoEncoder(1, **QUICK), {"alpha": [0.1, 1.0]}, cv=2)
    assert search.get_params(deep=False).keys() == GridSearchCV(None, {}).get_params(deep=False).keys()
    assert clone(search).fit(table).best_params_ == search.fit(table).best_params_
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(search)).transform(table), search.transform(table))


class Interrupts(skae.AutoEncoder):
    """An interrupt reaches the process while it trains."""

    def _loss(self, module, x):
        if type(x) is torch.Tensor and module.training and Interrupts.after == 0:
            raise KeyboardInterrupt
        Interrupts.after -= module.training
        return super()._loss(module, x)


def test_after_an_interrupt_nothing_is_left(table):
    Interrupts.after = 20
    search = skae.BatchedGridSearchCV(Interrupts(1, **QUICK), {"alpha": [0.1, 1.0, 2.0]}, cv=2)
    with pytest.raises(KeyboardInterrupt):
        search.fit(table)
    assert fits_left() == []
    assert not hasattr(search, "cv_results_")
    assert _training.trains_together.get() is None


class Filters(BaseEstimator):
    """Sets a filter of warnings around a fit of a network."""

    def __init__(self, alpha=1.0):
        self.alpha = alpha

    def fit(self, X, y=None):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.warn(f"alpha {self.alpha}", stacklevel=1)
            self.model_ = skae.AutoEncoder(1, alpha=self.alpha, **QUICK).fit(X)
            warnings.warn(f"alpha {self.alpha}", stacklevel=1)
        self.caught_ = [str(each.message) for each in caught]
        return self

    def score(self, X, y=None):
        assert self.caught_ == [f"alpha {self.alpha}"] * 2
        return self.model_.score(X)


def test_fits_keep_their_filters_of_warnings(table, stacked):
    before = list(warnings.filters)
    skae.BatchedGridSearchCV(Filters(), {"alpha": [0.1, 1.0]}, cv=2, refit=False, error_score="raise").fit(table)
    assert warnings.filters == before
    assert stacked


def test_a_search_within_a_search(table):
    inner = skae.BatchedGridSearchCV(skae.AutoEncoder(1, **QUICK), {"alpha": [0.1, 1.0]}, cv=2)
    outer = skae.BatchedGridSearchCV(inner, {"estimator__n_components": [1, 2]}, cv=2).fit(table)
    plain = GridSearchCV(
        GridSearchCV(skae.AutoEncoder(1, **QUICK), {"alpha": [0.1, 1.0]}, cv=2),
        {"estimator__n_components": [1, 2]},
        cv=2,
    ).fit(table)
    np.testing.assert_allclose(
        outer.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], rtol=0, atol=1e-6
    )


PLUGIN = """
from sklearn.experimental import enable_halving_search_cv
import sklearn.model_selection, skae
for name in ("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV"):
    setattr(sklearn.model_selection, name, getattr(skae, "Batched" + name))
"""
# It looks for `fit` among the callers of a scorer; the fits of a search run in threads, whose callers it does not see.
CANNOT_APPLY = ["test_multi_metric_search_forwards_metadata"]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("sklearn.model_selection.tests.test_search") is None,
    reason="no tests in this scikit-learn",
)
def test_scikit_learns_own_tests_of_searches(tmp_path):
    (tmp_path / "ours.py").write_text(PLUGIN)
    deselected = " and ".join(f"not {name}" for name in CANNOT_APPLY)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "ours", "-p", "no:cacheprovider", "-c", os.devnull]
    modules = ["sklearn.model_selection.tests.test_search", "sklearn.model_selection.tests.test_successive_halving"]
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    found = subprocess.run(
        [*command, "-k", deselected, "--pyargs", *modules],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert found.returncode == 0, found.stdout[-5000:]
    assert "passed" in found.stdout


class Mirrored(skae.AutoEncoder):
    """Trains on other rows than those of X: what `_training_rows` gives."""

    def _training_rows(self, x, sample, y):
        return 1 - 3 * x


def test_networks_trained_together_see_the_training_rows_of_their_member(table, stacked):
    models = [Mirrored(2, alpha=alpha, **QUICK) for alpha in (0.1, 0.2, 0.3, 0.4)]
    together = run_together([lambda each=each: clone(each).fit(table) for each in models])
    assert stacked
    for each, other in zip(models, together, strict=True):
        np.testing.assert_allclose(other.transform(table), each.fit(table).transform(table), atol=1e-5)
