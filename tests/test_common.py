"""Every public estimator keeps scikit-learn's contract and the family's laws."""

import copy
import inspect
import pickle
import re
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from numpydoc.docscrape import NumpyDocString
from numpydoc.validate import validate
from sklearn.base import clone
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.estimator_checks import parametrize_with_checks

import skae
from skae import _base

MEMBERS = [
    member
    for member in (getattr(skae, name) for name in skae.__all__)
    if isinstance(member, type) and issubclass(member, skae.BaseAutoEncoder) and not inspect.isabstract(member)
]
every_member = pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.__name__)
# Few epochs: the laws are about contracts, not quality.
QUICK = dict(max_iter=3, random_state=0)


@pytest.fixture
def X(table):
    return table


# scikit-learn's checks, those of check_estimator and those that it runs on its own estimators only.


@parametrize_with_checks([member(max_iter=5) for member in MEMBERS])
def test_sklearn_checks(estimator, check):
    check(estimator)


VARIANTS = [
    skae.VAE(prior="vamp", max_iter=3),
    skae.VAE(prior="flow", max_iter=3),
    skae.VAE(free_bits=0.1, max_iter=3),
    skae.SparseAutoEncoder(penalty="l1", max_iter=3),
    skae.SparseAutoEncoder(penalty="kl", max_iter=3),
    skae.VQVAE(n_codes=3, n_codebooks=2, max_iter=3),
    skae.ContractiveAutoEncoder(hidden_layer_sizes=8, max_iter=3),
]


# What a variant may break beside what its class keeps: it encodes in another way, or has another network to restore.
# Several codebooks refuse the single component that the checks set; they are tested without.
@pytest.mark.parametrize("variant", [v for v in VARIANTS if not isinstance(v, skae.VQVAE)], ids=str)
@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_methods_subset_invariance,
        estimator_checks.check_methods_sample_order_invariance,
        estimator_checks.check_transformer_data_not_an_array,
        estimator_checks.check_transformer_general,
        estimator_checks.check_estimators_pickle,
        estimator_checks.check_estimators_dtypes,
        estimator_checks.check_fit2d_1sample,
        estimator_checks.check_fit_idempotent,
        estimator_checks.check_n_features_in_after_fitting,
        estimator_checks.check_sample_weight_equivalence_on_dense_data,
        estimator_checks.check_estimator_sparse_array,
    ],
    ids=lambda check: check.__name__,
)
def test_sklearn_checks_of_variants(variant, check):
    check(type(variant).__name__, variant)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_variants_survive_pickling_and_continuing(variant, X):
    model = clone(variant).set_params(random_state=0).fit(X)
    reread = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(reread.transform(X), model.transform(X))
    np.testing.assert_array_equal(reread.score_samples(X), model.score_samples(X))
    np.testing.assert_array_equal(reread.partial_fit(X).transform(X), model.partial_fit(X).transform(X))
    if hasattr(model, "sample"):
        np.testing.assert_array_equal(reread.sample(3, random_state=0), model.sample(3, random_state=0))


@every_member
@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_param_validation,
        estimator_checks.check_set_output_transform,
        estimator_checks.check_set_output_transform_pandas,
        estimator_checks.check_set_output_transform_polars,
        estimator_checks.check_global_output_transform_pandas,
        estimator_checks.check_transformer_get_feature_names_out,
        estimator_checks.check_transformer_get_feature_names_out_pandas,
        estimator_checks.check_dataframe_column_names_consistency,
        estimator_checks.check_transformer_preserve_dtypes,
        estimator_checks.check_methods_subset_invariance,
        estimator_checks.check_methods_sample_order_invariance,
    ],
    ids=lambda check: check.__name__,
)
@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names")  # the checks mix frames and arrays
def test_checks_of_sklearns_own_estimators(member, check):
    check(member.__name__, member(max_iter=5))


def test_checks_with_array_api_dispatch():
    # SCIPY_ARRAY_API is read when SciPy is imported: a process of its own
    code = (
        "import sys; sys.path.insert(0, 'tests'); import warnings; warnings.simplefilter('error')\n"
        "from sklearn.utils.estimator_checks import check_estimator\n"
        "import skae\n"
        "check_estimator(skae.AutoEncoder(max_iter=2), on_skip=None)\n"
        "import numpy as np, sklearn, torch\n"
        "X = np.random.RandomState(0).standard_normal((50, 3))\n"
        "for name in skae.__all__:\n"
        "    if name not in ('AutoEncoderImputer', 'BaseAutoEncoder') and 'Search' not in name:\n"
        "        model = getattr(skae, name)(max_iter=1, random_state=0)\n"
        "        expected = model.fit(X).transform(X)\n"
        "        with sklearn.config_context(array_api_dispatch=True):\n"
        "            codes = model.fit(torch.from_numpy(X)).transform(torch.from_numpy(X))\n"
        "        assert isinstance(codes, np.ndarray)\n"
        "        np.testing.assert_array_equal(codes, expected)\n"
    )
    environment = {"SCIPY_ARRAY_API": "1", "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


# Parameters and attributes: each has a default, a constraint and a text; the same one in all members.


@every_member
def test_every_parameter_has_a_constraint_and_a_text(member):
    own = inspect.signature(member).parameters
    assert next(iter(own)) == "n_components"
    assert [name for name, p in own.items() if p.kind is not p.KEYWORD_ONLY] == ["n_components"]
    assert set(member._parameter_constraints) == set(own) == set(member().get_params())
    documented = {entry.name: entry for entry in NumpyDocString(inspect.getdoc(member))["Parameters"]}
    assert list(documented) == list(own)
    assert all(entry.desc and entry.type for entry in documented.values())


@every_member
def test_shared_parameters_have_the_same_defaults(member):
    base = inspect.signature(skae.BaseAutoEncoder).parameters
    own = inspect.signature(member).parameters
    without = set(base) - set(own)
    without_validation = {"early_stopping", "cv", "validation_fraction", "n_iter_no_change", "tol"}
    expected = {skae.TDVAE: {"categorical_features"}}.get(member, set())
    assert without == (without_validation if _keeps_last(member) else expected)
    measured = MEASURED.get(member, {})
    assert {name: own[name].default for name in base.keys() & own} == {
        name: measured.get(name, base[name].default) for name in base.keys() & own
    }


# Shared parameters of which a member has defaults of its own, by measurement.
MEASURED = {skae.NeighborAutoEncoder: {"hidden_layer_sizes": (512, 512, 256)}}


def _keeps_last(member):
    return member in (skae.AdversarialAutoEncoder, skae.NeighborAutoEncoder)


@every_member
def test_documented_attributes_are_there(member, X):
    model = member(**QUICK).fit(pd.DataFrame(X, columns=list("abcdef")))
    names = [entry.name for entry in NumpyDocString(inspect.getdoc(member))["Attributes"]]
    assert "module_" in names
    assert len(names) == len(set(names))
    for name in names:
        assert hasattr(model, name), name


@every_member
@pytest.mark.parametrize(
    "method",
    ["", "fit", "partial_fit", "transform", "inverse_transform", "score", "score_samples", "to_onnx", "model_card"],
)
def test_numpydoc_finds_nothing_wrong(member, method):
    # where the summary begins; sections that methods would only repeat; names of what is returned
    left_out = {"GL01", "ES01", "EX01", "SA01", "RT02"}
    found = validate(f"skae.{member.__name__}{'.' if method else ''}{method}")["errors"]
    assert [error for error in found if error[0] not in left_out] == []


# The same seed, the same bits; nothing of the caller's changes.


@every_member
def test_same_seed_same_bits(member, X):
    first, second = member(**QUICK).fit(X), member(**QUICK).fit(X)
    np.testing.assert_array_equal(first.transform(X), second.transform(X))
    np.testing.assert_array_equal(first.score_samples(X), second.score_samples(X))
    assert first.loss_curve_ == second.loss_curve_
    other = member(**{**QUICK, "random_state": 1}).fit(X)
    assert first.loss_curve_ != other.loss_curve_


@every_member
def test_same_bits_in_workers_threads_and_after_pickling(member, X):
    model = member(**QUICK).fit(X)
    expected = model.transform(X)
    reread = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(reread.transform(X), expected)
    np.testing.assert_array_equal(clone(reread).fit(X).transform(X), expected)
    jobs = [joblib.delayed(_fit_transform)(member(**QUICK), X) for _ in range(3)]
    for backend in ("loky", "threading"):
        for codes in joblib.Parallel(2, backend=backend)(jobs):
            np.testing.assert_array_equal(codes, expected)


def _fit_transform(model, X):
    return model.fit(X).transform(X)


@every_member
def test_same_bits_for_any_number_of_threads(member):
    X = np.random.RandomState(0).standard_normal((1000, 300))  # large enough for two threads
    options = {"batch_size": 500, "max_iter": 1, "random_state": 0}
    options |= {"n_channels": 100} if member is skae.TDVAE else {}  # 300 steps one after another take their time
    before = torch.get_num_threads()
    try:
        weights = []
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            weights.append(member(**options).fit(X).module_.state_dict())
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@every_member
def test_global_states_and_data_untouched(member, X):
    torch.set_default_dtype(torch.float64)
    try:
        torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
        threads, original = torch.get_num_threads(), X.copy()
        model = member(**QUICK).fit(X)
        codes = model.transform(X)
        model.inverse_transform(codes)
        model.score_samples(X)
        model.partial_fit(X)
        pickle.loads(pickle.dumps(model))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state[1])
    assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(X, original)
    np.testing.assert_array_equal(codes, member(**QUICK).fit(X).transform(X))


@every_member
def test_caller_can_change_what_it_passed(member, X):
    X = X.copy()
    model = member(**QUICK).fit(X)
    before = model.transform(X[:3])
    rows = X[:3].copy()
    X[:] = 0
    np.testing.assert_array_equal(model.transform(rows), before)


# Components.


@every_member
def test_components_are_in_the_order_of_what_they_explain(member, X):
    model = member(4, **QUICK).fit(X)
    explained, ratio = model.explained_variance_, model.explained_variance_ratio_
    assert (np.diff(explained) <= 0).all()
    np.testing.assert_allclose(ratio, explained / X.var(axis=0, ddof=1).sum(), rtol=1e-5)
    X_hat = model.inverse_transform(model.transform(X))
    assert explained.sum() == pytest.approx(X_hat.var(axis=0, ddof=1).sum(), rel=0.02)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).explained_variance_, explained)
    assert not hasattr(model.partial_fit(X), "explained_variance_")


# Rows, dtypes, containers.


@every_member
def test_rows_do_not_depend_on_their_batch(member, X):
    model = member(**QUICK, **({"n_channels": 3} if member is skae.TDVAE else {})).fit(X)
    many = np.tile(X, (30, 1))  # more rows than are mapped at once
    for method in ("transform", "score_samples"):
        whole = getattr(model, method)(many)
        alone = np.concatenate([getattr(model, method)(row[None]) for row in X])
        np.testing.assert_allclose(whole[: len(X)], alone, atol=1e-7, rtol=1e-9)
        np.testing.assert_allclose(whole[-len(X) :], alone, atol=1e-7, rtol=1e-9)


@every_member
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_in_is_dtype_out(member, X, dtype):
    model = member(**QUICK).fit(X.astype(dtype))
    codes = model.transform(X.astype(dtype))
    assert codes.dtype == dtype
    assert model.inverse_transform(codes).dtype == dtype
    assert model.score_samples(X.astype(dtype)).dtype == np.float64
    reference = member(**QUICK).fit(X).transform(X)
    # training amplifies the rounding of X, and a row may have other active entries
    assert np.isclose(codes, reference, atol=0.1).mean() > 0.98
    assert member(**QUICK).fit(X.astype(int)).transform(X.astype(int)).dtype == np.float64


@every_member
def test_read_only_and_memory_mapped(member, X, tmp_path):
    expected = member(**QUICK).fit(X).transform(X)
    frozen = X.copy()
    frozen.setflags(write=False)
    joblib.dump(X, tmp_path / "X.joblib")
    mapped = joblib.load(tmp_path / "X.joblib", mmap_mode="r")
    for rows in (frozen, mapped, np.asfortranarray(X), X.tolist()):
        np.testing.assert_allclose(member(**QUICK).fit(rows).transform(rows), expected, atol=1e-9)


@every_member
@pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
def test_data_frames(member, X, library):
    names = list("abcdef")
    frame = library.DataFrame({name: X[:, i] for i, name in enumerate(names)})
    container = "pandas" if library is pd else "polars"
    model = member(3, **QUICK).set_output(transform=container).fit(frame)
    assert list(model.feature_names_in_) == names
    codes = model.transform(frame)
    assert isinstance(codes, library.DataFrame)
    assert list(codes.columns) == list(model.get_feature_names_out())
    assert list(codes.columns) == [f"{member.__name__.lower()}{i}" for i in range(3)]
    with pytest.raises(ValueError, match="feature names should match"):
        model.transform(frame[names[::-1]])


@every_member
def test_few_rows(member, X):
    for n_rows in (1, 2, 3, 7, 20):
        model = member(2, **QUICK).fit(X[:n_rows])
        assert model.transform(X[:n_rows]).shape == (n_rows, 2)
        assert np.isfinite(model.inverse_transform(model.transform(X))).all()
        assert model.n_iter_ >= 1


@every_member
def test_more_components_than_features_or_rows(member, X):
    model = member(9, **QUICK).fit(X)
    codes = model.transform(X)
    assert codes.shape == (200, 9)
    assert np.isfinite(model.score_samples(X)).all()
    codes = member(5, **QUICK).fit(X[:4]).transform(X)
    assert codes.shape == (200, 5)
    assert np.isfinite(codes).all()


@every_member
def test_constant_columns(member, X):
    X = np.column_stack([X, np.full(len(X), 7.0)])
    model = member(**QUICK).fit(X)
    X_hat = model.inverse_transform(model.transform(X))
    assert np.isfinite(X_hat).all()
    np.testing.assert_allclose(X_hat[:, -1], 7, atol=0.3)
    constant = member(**QUICK).fit(np.full((20, 3), 7.0))
    np.testing.assert_allclose(constant.inverse_transform(constant.transform(np.full((2, 3), 7.0))), 7, atol=1e-3)


@every_member
def test_components_by_share_of_variance_as_pca_reads_it(member, X):
    from sklearn.decomposition import PCA

    for share in (0.3, 0.7, 0.95, 0.999):
        model = member(share, hidden_layer_sizes=(), max_iter=1, random_state=0).fit(X)
        assert model.n_components_ == PCA(share, svd_solver="full").fit(X).n_components_


@every_member
def test_large_values(member, X):
    for dtype in (np.float32, np.float64):
        huge = X.copy()
        huge[:, 0] *= 1e30
        huge = huge.astype(dtype)
        model = member(**QUICK).fit(huge)
        X_hat = model.inverse_transform(model.transform(huge))
        assert np.isfinite(X_hat).all()
        assert np.isfinite(model.score_samples(huge)).all()
        assert np.isfinite(model.score(huge))
        if member is not skae.TDVAE:  # its code keeps what tells of later steps, and these are zero beside the first
            assert np.corrcoef(X_hat[:, 0], huge[:, 0])[0, 1] > 0.99
    with pytest.raises(ValueError, match="too large"):
        member(**QUICK).fit(X * 1e200)


def test_what_is_assumed_finite_and_is_not(X):
    X[3, 1] = np.nan
    with sklearn.config_context(assume_finite=True):  # a missing cell is one whatever is assumed
        codes = skae.AutoEncoder(**QUICK).fit(X).transform(X)
    np.testing.assert_array_equal(codes, skae.AutoEncoder(**QUICK).fit(X).transform(X))


@every_member
def test_tensors_are_taken_as_the_arrays_they_are(member, X):
    codes = member(**QUICK).fit(torch.from_numpy(X)).transform(torch.from_numpy(X))
    assert isinstance(codes, np.ndarray)
    np.testing.assert_array_equal(codes, member(**QUICK).fit(X).transform(X))


# Bad input and interrupted fits.


@every_member
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([[1.0, np.inf], [2.0, 3.0]], "infinity"),
        ([1.0, 2.0, 3.0], "Expected 2D array, got 1D array"),
        (np.empty((0, 3)), "Found array with 0 sample"),
        (np.empty((3, 0)), "Found array with 0 feature"),
        (np.ones((3, 2), dtype=complex), "Complex data not supported"),
    ],
    ids=["infinity", "1-D", "no rows", "no columns", "complex"],
)
def test_bad_input_leaves_the_estimator_as_it_was(member, X, bad, message):
    unfitted = member(**QUICK)
    for method in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=message):
            getattr(unfitted, method)(bad)
        assert not [name for name in vars(unfitted) if name.endswith("_")]
    fitted = member(**QUICK).fit(pd.DataFrame(X, columns=list("abcdef")))
    before = {name: value for name, value in vars(fitted).items() if name.endswith("_")}
    for method in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=r".") as error, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the missing names
            getattr(fitted, method)(bad)
        # partial_fit may find the wrong width first
        expected = message if method == "fit" else f"{message}|is expecting 6 features"
        assert re.search(expected, str(error.value))
    after = {name: value for name, value in vars(fitted).items() if name.endswith("_")}
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)


@every_member
def test_wrong_width(member, X):
    model = member(**QUICK).fit(X)
    for method in ("transform", "score_samples", "score", "partial_fit"):
        with pytest.raises(ValueError, match=r"X has 5 features, but .* is expecting 6 features"):
            getattr(model, method)(X[:, :5])
    with pytest.raises(ValueError, match=r"X has 3 columns, but .*inverse_transform is expecting n_components_=2"):
        model.inverse_transform(np.ones((4, 3)))
    with pytest.raises(ValueError, match="NaN"):
        model.inverse_transform([[np.nan, 1.0]])


@every_member
def test_unfitted_use(member, X):
    for method in ("transform", "inverse_transform", "score_samples", "score"):
        with pytest.raises(NotFittedError):
            getattr(member(), method)(X)
    with pytest.raises(NotFittedError):
        member().get_feature_names_out()


@every_member
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_components", 0),
        ("n_components", 1.5),
        ("activation", "swish"),
        ("init", "svd"),
        ("alpha", -1),
        ("batch_size", 0),
        ("learning_rate_init", 0),
        ("max_iter", 0),
        ("validation_fraction", 1.0),
        ("device", "tpu"),
        ("device", "cuda:first"),
    ],
)
def test_bad_parameters(member, X, name, value):
    if name not in inspect.signature(member).parameters:
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            member(**{name: value})
        return
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of {member.__name__} must be"):
        member(**{name: value}).fit(X)


@every_member
def test_bad_hidden_layers(member, X):
    for bad in ((8, 0), True, (True,), (8.0,)):
        with pytest.raises(InvalidParameterError, match="hidden_layer_sizes must be integers > 0"):
            member(hidden_layer_sizes=bad).fit(X)


@every_member
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_missing_device(member, X):
    for device in ("cuda", "cuda:1"):
        with pytest.raises(ValueError, match=f"device='{device}' is not available"):
            member(device=device).fit(X)
    model = member(device="auto", **QUICK).fit(X)
    assert next(model.module_.parameters()).device.type == "cpu"
    np.testing.assert_array_equal(model.transform(X), member(**QUICK).fit(X).transform(X))


@every_member
def test_diverging_fit_warns_and_keeps_finite_weights(member, X):
    with pytest.warns(ConvergenceWarning, match="not finite in epoch"):
        model = member(learning_rate_init=1e30, max_iter=20, random_state=0).fit(X)
    assert np.isfinite(model.transform(X)).all()
    assert np.isfinite(model.score(X))
    fitted = member(**QUICK).fit(X).set_params(learning_rate_init=1e38)
    with pytest.raises(ValueError, match="not finite in partial_fit, which is undone"):
        for _ in range(5):
            before = fitted.transform(X)
            fitted.partial_fit(X)
    assert np.isfinite(before).all()
    np.testing.assert_array_equal(fitted.transform(X), before)


class Interrupt:
    """A callback that presses Ctrl-C after some epochs."""

    def __init__(self, epochs):
        self.epochs = epochs

    def setup(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        self.epochs -= 1
        if self.epochs == 0:
            raise KeyboardInterrupt

    def teardown(self, estimator, context):
        pass


@every_member
def test_interrupted_fit_leaves_no_half_fitted_estimator(member, X):
    model = member(**QUICK).set_callbacks(Interrupt(2))
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert not [name for name in vars(model) if name.endswith("_")]
    model = member(**QUICK).fit(X)
    expected = model.transform(X)
    with pytest.raises(KeyboardInterrupt):
        model.set_callbacks(Interrupt(2)).fit(X[:, :4])
    np.testing.assert_array_equal(model.transform(X), expected)


# Refitting, warm starts, partial fits.


@every_member
def test_refit_forgets(member, X):
    model = member(**QUICK).fit(X[:, :4]).partial_fit(X[:, :4]).fit(X)
    np.testing.assert_array_equal(model.transform(X), member(**QUICK).fit(X).transform(X))


@every_member
def test_warm_start_continues(member, X):
    model = member(warm_start=True, max_iter=20, random_state=0).fit(X)
    best, mean = model.best_loss_, model.mean_
    model.fit(X)
    assert _keeps_last(member) or model.best_loss_ <= best + 1e-6 * abs(best)
    assert model.mean_ is mean
    with pytest.raises(ValueError, match="expecting 6 features"):
        model.fit(X[:, :4])


@every_member
def test_partial_fit_learns_and_repeats(member, X, monkeypatch):
    monkeypatch.setattr(_base, "FIRST_PASSES", 3)
    # the first rows give TDVAE the linear model of maximum likelihood, and these rows have nothing beyond it
    options = {"hidden_layer_sizes": (32, 16), "random_state": 0}
    options |= {"init": "random", "n_channels": 3} if member is skae.TDVAE else {}

    def stream(pickled):
        model = member(**options)
        for _ in range(6):
            for part in np.array_split(X, 3):
                model.partial_fit(part)
                model = pickle.loads(pickle.dumps(model)) if pickled else model
        return model

    model = stream(pickled=False)
    first = member(**options).partial_fit(X[:67])
    assert model.score(X) > first.score(X)
    assert model.n_iter_ == 18 + 2  # three passes with the call that completes the first rows
    assert model.n_samples_ == 6 * len(X)
    np.testing.assert_array_equal(stream(pickled=True).transform(X), model.transform(X))
    np.testing.assert_allclose(model.mean_, X.mean(axis=0))  # of the first 1000 rows: five times all
    np.testing.assert_array_equal(first.mean_, X[:67].mean(axis=0))


@every_member
def test_partial_fit_follows_fit(member, X):
    model = member(**QUICK).fit(X)
    expected = model.transform(X)
    model.partial_fit(X)
    assert np.abs(model.transform(X) - expected).max() > 0
    assert model.n_iter_ == 4
    assert member(**QUICK).partial_fit(X[:1]).transform(X).shape == (200, 2)


# Saving.


@every_member
def test_joblib_and_skops_round_trips(member, X, tmp_path):
    import skops.io

    model = member(**QUICK).fit(pd.DataFrame(X, columns=list("abcdef")))
    frame = pd.DataFrame(X, columns=list("abcdef"))
    joblib.dump(model, tmp_path / "model.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "model.joblib").transform(frame), model.transform(frame))
    stored = skops.io.dumps(model)
    assert skops.io.get_untrusted_types(data=stored) == [f"{member.__module__}.{member.__name__}"]
    loaded = skops.io.loads(stored, trusted=[f"{member.__module__}.{member.__name__}"])
    np.testing.assert_array_equal(loaded.transform(frame), model.transform(frame))
    loaded.partial_fit(frame)


@every_member
def test_pickle_has_arrays_only_and_is_small(member, X):
    model = member(**QUICK).fit(X)
    data = pickle.dumps(model)
    n_weights = sum(value.numel() for value in model.module_.state_dict().values())
    assert len(data) < 4 * n_weights + 8000
    assert b"torch" not in data
    for twin in (copy.deepcopy(model), copy.copy(model)):
        np.testing.assert_array_equal(twin.transform(X), model.transform(X))


@every_member
def test_pickle_after_parameters_changed(member, X):
    model = member(**QUICK).fit(X)
    model.set_params(hidden_layer_sizes=(3,), activation="relu")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).transform(X), model.transform(X))


@every_member
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_continuing_needs_the_parameters_that_define_the_network(member, X, method):
    model = member(warm_start=True, **QUICK).fit(X)
    expected = model.transform(X)
    model.set_params(n_components=3, hidden_layer_sizes=(5,))
    with pytest.raises(
        ValueError,
        match="Cannot continue training: hidden_layer_sizes, n_components define the network and have changed",
    ):
        getattr(model, method)(X)
    np.testing.assert_array_equal(model.transform(X), expected)
    model.set_params(n_components=2, hidden_layer_sizes=list(member().hidden_layer_sizes), alpha=0.0)
    getattr(model, method)(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).transform(X), model.transform(X))


@every_member
def test_pickle_of_a_fit_on_a_missing_device_loads(member, X):
    model = member(**QUICK).fit(X)
    expected = model.transform(X)
    model.device = "cuda" if not torch.cuda.is_available() else "mps"
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.transform(X), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@every_member
def test_gpu_agrees_with_cpu(member, X):
    linear = dict(hidden_layer_sizes=(), max_iter=1, random_state=0)
    there, here = member(device="cuda", **linear).fit(X), member(**linear).fit(X)
    np.testing.assert_allclose(there.score(X), here.score(X), rtol=1e-4)
    state = torch.cuda.get_rng_state()
    first, second = (member(device="cuda", **QUICK).fit(X).transform(X) for _ in range(2))
    np.testing.assert_allclose(first, second, rtol=1e-4)
    assert torch.equal(torch.cuda.get_rng_state(), state)


# Within scikit-learn.


@every_member
def test_pipeline_grid_search_and_cross_validation(member):
    X, y = load_breast_cancer(return_X_y=True)
    options = QUICK | ({"n_channels": 10} if member is skae.TDVAE else {})  # three steps, not thirty
    pipeline = make_pipeline(StandardScaler(), member(10, **options), LogisticRegression())
    assert pipeline.fit(X, y).score(X, y) > 0.9
    assert list(pipeline[:-1].get_feature_names_out()) == [f"{member.__name__.lower()}{i}" for i in range(10)]
    assert cross_val_score(pipeline, X, y, cv=2).mean() > 0.9


def test_a_grid_search_is_the_same_in_any_number_of_processes():
    X, y = load_breast_cancer(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), skae.AutoEncoder(**QUICK), LogisticRegression())
    grid = {"autoencoder__n_components": [2, 5]}
    one, two = (GridSearchCV(pipeline, grid, n_jobs=n_jobs, cv=3).fit(X, y) for n_jobs in (1, 2))
    np.testing.assert_array_equal(one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"])


@every_member
def test_grid_search_needs_no_scorer(member, X):
    search = GridSearchCV(member(**QUICK), {"n_components": [1, 4]}, cv=2).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_params_ == {"n_components": 4}


@every_member
def test_unions_columns_and_targets(member, X):
    union = FeatureUnion([("a", member(2, **QUICK)), ("b", member(3, **QUICK))], n_jobs=2).fit(X)
    assert union.transform(X).shape == (200, 5)
    columns = ColumnTransformer([("code", member(1, **QUICK), [0, 1, 2])], remainder="passthrough").fit(X)
    assert columns.transform(X).shape == (200, 4)
    target = TransformedTargetRegressor(LinearRegression(), transformer=member(2, **QUICK), check_inverse=False)
    assert target.fit(X, X[:, :3]).predict(X).shape == (200, 3)


# Callbacks.


@every_member
def test_progress_bar_alone_in_a_pipeline_and_under_grid_search(member, X, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # room for the percentage
    for model in (
        member(**QUICK),
        make_pipeline(StandardScaler(), member(**QUICK)),
        GridSearchCV(member(**QUICK), {"n_components": [1, 2]}, cv=2),
    ):
        model.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(X)
        shown = capsys.readouterr().out
        assert type(model).__name__ in shown
        assert member.__name__ in shown
        assert "100%" in shown


@every_member
def test_scoring_monitor_alone_in_a_pipeline_and_under_grid_search(member, X):
    def monitor():
        return ScoringMonitor(scoring={"held": lambda model, X, y: model.score(X)})

    alone = monitor()
    model = member(init="random", **QUICK).set_callbacks(alone).fit(X)
    scores = [row["held"] for row in alone.get_logs().data if row["task_name"] == "epoch"]
    refitted = model.early_stopping
    assert len(scores) == 3 + refitted * model.best_iter_
    assert model.best_iter_ >= 1
    # components are put in order after the last epoch: their draws are others then
    tolerance = 0.1 if hasattr(model, "elbo") else 1e-6
    assert scores[-1 if refitted else model.best_iter_ - 1] == pytest.approx(model.score(X), abs=tolerance)
    for wrap in (
        lambda inner: make_pipeline(StandardScaler(), inner),
        lambda inner: GridSearchCV(inner, {"n_components": [1, 2]}, cv=2, n_jobs=2),
    )[: 2 if member is skae.AutoEncoder else 1]:  # how a search carries callbacks along is not the member's
        inside = monitor()
        wrap(member(**QUICK).set_callbacks(inside)).fit(X)
        logs = inside.get_logs(select="all")
        assert sum(len(log.data) for log in logs) >= 3
        assert all(np.isfinite(row["held"]) for log in logs for row in log.data)
