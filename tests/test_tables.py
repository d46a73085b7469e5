"""Tables as they are: categories and missing cells in, the same table out."""

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import KNNImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import skae
from skae import VAE, AutoEncoder, AutoEncoderImputer, DenoisingAutoEncoder
from skae._axes import observed_axes, observed_posterior
from skae._layers import factor_model

QUICK = dict(max_iter=3, random_state=0)
PUBLIC = [getattr(skae, name) for name in skae.__all__]
MEMBERS = [each for each in PUBLIC if issubclass(each, skae.BaseAutoEncoder) and each is not skae.BaseAutoEncoder]
MEMBERS.remove(skae.TDVAE)  # whose columns are the steps of a series: numbers
every_member = pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.__name__)


@pytest.fixture
def frame():
    """Numbers of several dtypes and categories that depend on them."""
    rng = np.random.RandomState(0)
    n = 200
    size, angle = rng.standard_normal(n), rng.standard_normal(n)
    color = np.where(size + 0.3 * rng.standard_normal(n) > 0.5, "red", np.where(size > -0.5, "green", "blue"))
    return pd.DataFrame(
        {
            "size": size,
            "age": np.round(40 + 10 * size + 5 * angle).astype("int32"),
            "weight": pd.array(np.round(70 + 10 * angle), dtype="Int64"),
            "income": (1e4 * np.exp(0.3 * size + 0.2 * angle)).astype("float32"),
            "color": pd.Categorical(color, categories=["red", "green", "blue", "unused"]),
            "city": pd.array(np.where(angle > 0, "Bern", "Oslo"), dtype="str"),
            "flag": size > 0.2,
            "maybe": pd.array(angle > -0.3, dtype="boolean"),
            "word": np.where(size * angle > 0, "yes", "no").astype(object),
        }
    )


def punched(X, share=0.3, seed=0):
    return np.where(np.random.RandomState(seed).rand(*X.shape) < share, np.nan, X)


def with_holes(frame, share=0.2, seed=0):
    return frame.mask(np.random.RandomState(seed).rand(*frame.shape) < share)


@pytest.fixture
def numbers():
    X = load_breast_cancer().data[:250, :8]
    return (X - X.mean(0)) / X.std(0)


def quiet(model, X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X)


# Round trips, and what comes back.


@every_member
def test_every_member_takes_tables_and_gives_them_back(member, frame):
    holes = with_holes(frame)
    model = quiet(member(2, **QUICK), holes)
    assert np.isfinite(model.transform(holes)).all()
    assert np.isfinite(model.score(holes))
    assert np.isfinite(model.score_samples(holes)).all()
    back = model.inverse_transform(model.transform(frame))
    assert list(back.columns) == list(frame.columns)
    assert not back.isna().any().any()
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.transform(holes), model.transform(holes))
    model.partial_fit(holes)


def test_all_components_give_the_table_back(frame):
    model = AutoEncoder(17, hidden_layer_sizes=(), **QUICK).fit(frame)
    back = model.inverse_transform(model.transform(frame))
    assert back.dtypes.tolist() == frame.dtypes.tolist()
    numeric = ["size", "age", "weight", "income"]
    scale = frame[numeric].astype(float).abs().max()
    assert ((back[numeric].astype(float) - frame[numeric].astype(float)).abs() / scale).max().max() < 1e-5
    pd.testing.assert_frame_equal(back[["color", "city", "flag", "maybe", "word"]], frame.drop(columns=numeric))


ARROW = "string[pyarrow]", "bool[pyarrow]", "int32[pyarrow]", "double[pyarrow]"


def test_dtypes_of_pandas_come_back(frame):
    table = pd.DataFrame(
        {
            "string": frame["city"].astype("string"),
            "arrow string": frame["city"].astype(ARROW[0]),
            "arrow bool": frame["flag"].astype(ARROW[1]),
            "arrow int": frame["age"].astype(ARROW[2]),
            "arrow double": frame["size"].astype(ARROW[3]),
            "ordered": pd.Categorical(frame["word"], categories=["yes", "no"], ordered=True),
            "numbers as categories": pd.Categorical(frame["age"] // 20),
            "uint8": frame["age"].clip(0, 200).astype("uint8"),
            "Float32": frame["size"].astype("Float32"),
        }
    )
    model = AutoEncoder(3, **QUICK).fit(table)
    assert model.inverse_transform(model.transform(table)).dtypes.tolist() == table.dtypes.tolist()


def test_polars_in_polars_out(frame):
    table = pl.DataFrame(
        {
            "size": frame["size"].to_numpy(),
            "age": pl.Series(frame["age"].to_numpy(), dtype=pl.Int16),
            "color": pl.Series(frame["color"].tolist(), dtype=pl.Enum(["red", "green", "blue", "unused"])),
            "city": pl.Series(frame["city"].tolist(), dtype=pl.Categorical),
            "word": frame["word"].tolist(),
            "flag": frame["flag"].tolist(),
        }
    )
    model = VAE(2, **QUICK).fit(table)
    back = model.inverse_transform(model.transform(table))
    assert back.schema == table.schema
    holes = table.with_columns(
        pl.when(pl.int_range(200) % 5 == 0).then(None).otherwise(pl.col(name)).alias(name) for name in table.columns
    )
    filled = model.impute(holes)
    assert filled.schema == table.schema
    assert filled.null_count().to_numpy().sum() == 0
    assert filled[1:5].equals(table[1:5])
    assert model.sample(4, random_state=0).schema == table.schema


def test_codes_do_not_depend_on_the_container(frame):
    frame = frame[["size", "age", "income", "color", "word", "flag"]]
    holes = frame.astype(object).mask(np.random.RandomState(0).rand(*frame.shape) < 0.2, None)
    typed = holes.astype(
        {"size": float, "age": "Int64", "income": "float64", "color": "category", "word": "string", "flag": "boolean"}
    )
    arrow = typed.astype({"word": ARROW[0], "flag": ARROW[1], "age": ARROW[2], "size": ARROW[3]})
    polars = pl.from_pandas(typed.assign(color=typed["color"].astype("string")))
    tables = [holes, typed, arrow, polars, holes.to_numpy(dtype=object)]
    codes = [VAE(2, **QUICK).fit(table).transform(table) for table in tables]
    for other in codes[1:]:
        np.testing.assert_array_equal(other, codes[0])


def test_an_array_of_objects_comes_back_as_one(frame):
    X = frame[["size", "word"]].to_numpy(dtype=object)
    model = AutoEncoder(2, **QUICK).fit(X)
    back = model.inverse_transform(model.transform(X))
    assert back.dtype == object
    assert isinstance(back[0, 0], float)
    assert set(back[:, 1]) <= {"yes", "no"}


def test_categorical_features_by_name_index_and_mask():
    X = pd.DataFrame({"a": [0.0, 1, 2] * 20, "b": np.arange(60.0)})
    given = [["a"], [0], np.array([True, False])]
    codes = [AutoEncoder(1, categorical_features=value, **QUICK).fit(X).transform(X) for value in given]
    np.testing.assert_array_equal(codes[0], codes[1])
    np.testing.assert_array_equal(codes[0], codes[2])
    assert not np.allclose(codes[0], AutoEncoder(1, **QUICK).fit(X).transform(X))
    with pytest.raises(ValueError, match="could not convert string"):
        AutoEncoder(1, categorical_features=None, **QUICK).fit(X.assign(c="x"))


def test_numbers_stay_numbers(numbers):
    frame = pd.DataFrame(numbers, columns=list("abcdefgh"))
    model = AutoEncoder(2, **QUICK).fit(frame)
    assert isinstance(model.inverse_transform(model.transform(frame)), np.ndarray)
    assert isinstance(model.scale_, float)


# Missing cells.


def test_rows_and_columns_without_anything_observed(frame, numbers):
    for X, model in ((frame, VAE(2, **QUICK)), (numbers, AutoEncoder(2, **QUICK)), (punched(numbers), VAE(2, **QUICK))):
        model.fit(X)
        empty = pd.DataFrame(X).head(6).astype(object)
        empty.iloc[0, :], empty.iloc[:, 1] = None, None
        if X is not frame:
            empty = empty.to_numpy(dtype=float)
        assert np.isfinite(model.transform(empty)).all()
        assert np.isfinite(model.score_samples(empty)).all()


def test_unknown_categories_are_missing(frame):
    model = VAE(2, **QUICK).fit(with_holes(frame))
    unknown, missing = frame.copy(), frame.astype(object)
    unknown.loc[10:, "word"], missing.loc[10:, "word"] = "never seen", None
    np.testing.assert_array_equal(model.transform(unknown), model.transform(missing))
    assert (model.impute(unknown)["word"][10:] == "never seen").all()  # it was observed


@every_member
def test_a_row_is_the_same_alone_and_in_another_order(member, frame):
    holes = with_holes(frame)
    model = quiet(member(2, **QUICK), holes)
    codes = model.transform(holes)
    order = np.random.RandomState(1).permutation(len(holes))
    np.testing.assert_allclose(model.transform(holes.iloc[order]), codes[order], atol=1e-7)
    np.testing.assert_allclose(model.transform(holes.iloc[[7]]), codes[[7]], atol=1e-7)
    scores = model.score_samples(holes)
    np.testing.assert_allclose(model.score_samples(holes.iloc[[7]]), scores[[7]], rtol=1e-7)


def test_draws_do_not_depend_on_other_rows(frame):
    holes = with_holes(frame)
    model = VAE(2, **QUICK).fit(holes)
    draws = model.impute(holes, n_draws=3, random_state=0)
    alone = model.impute(holes.iloc[[7]], n_draws=3, random_state=0)
    for whole, row in zip(draws, alone, strict=True):
        pd.testing.assert_frame_equal(whole.iloc[[7]], row, rtol=1e-7)
    assert not draws[0].equals(draws[1])
    pd.testing.assert_frame_equal(draws[0], model.impute(holes, n_draws=3, random_state=0)[0])


def test_observed_cells_are_untouched(frame, numbers):
    holes = with_holes(frame)
    filled = VAE(2, **QUICK).fit(holes).impute(holes)
    assert not filled.isna().any().any()
    seen = holes.notna()
    assert filled.where(seen).astype(object).fillna(0).equals(holes.astype(object).fillna(0))
    X = punched(numbers).astype(np.float32)
    filled = VAE(2, **QUICK).fit(X).impute(X)
    assert filled.dtype == np.float32
    np.testing.assert_array_equal(filled[~np.isnan(X)], X[~np.isnan(X)])
    assert not np.isnan(filled).any()


@every_member
def test_cells_that_are_missing_later_than_in_fit(member, frame, numbers):
    for complete, holes in ((frame, with_holes(frame)), (numbers, punched(numbers))):
        for options in ({}, {"X_val": holes[:50]}):
            if member in (skae.AdversarialAutoEncoder, skae.NeighborAutoEncoder) and options:
                continue  # it takes no validation rows
            model = member(2, warm_start=True, **QUICK)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(complete, **options).partial_fit(holes).fit(holes)
            assert np.isfinite(model.transform(holes)).all()


@pytest.mark.parametrize(
    "options",
    [
        {"prior": "vamp"},
        {"prior": "flow"},
        {"beta": 0.0},
        {"beta": 4.0},
        {"free_bits": 0.1},
        {"n_draws": 3},
        {"noise_variance": 0.1},
        {"init": "random"},
    ],
    ids=str,
)
def test_options_of_the_vae(options, frame, numbers):
    for X in (with_holes(frame)[:80], punched(numbers)[:80], frame[:80]):
        model = quiet(VAE(2, **options, **QUICK), X)
        assert np.isfinite(model.score_samples(X)).all()
        assert np.isfinite(model.elbo(X)).all()
        assert model.sample(5, random_state=0).shape == (5, X.shape[1])
        noise = model.noise_variance_
        assert noise.shape == (X.shape[1],)
        assert np.isfinite(noise).sum() == (8 if X.shape[1] == 8 else 4)  # of numbers
        assert not pd.DataFrame(model.impute(X)).isna().any().any()


def test_bernoulli_likelihood_of_observed_cells(numbers):
    X = punched((numbers > 0).astype(float))
    model = VAE(2, likelihood="bernoulli", **QUICK).fit(X)
    assert np.isfinite(model.score_samples(X)).all()
    assert set(np.unique(model.impute(X, n_draws=1, random_state=0)[0])) <= {0.0, 1.0}


@pytest.mark.parametrize("noise", ["gaussian", "masking", "salt_and_pepper", "swap"])
def test_noise_of_tables(noise, frame):
    model = DenoisingAutoEncoder(2, noise=noise, noise_level=0.3, **QUICK).fit(with_holes(frame))
    assert np.isfinite(model.transform(frame)).all()


def test_integers_stay_within_their_dtype(frame):
    X = pd.DataFrame(
        {"u": np.array([0, 5] * 100, "uint8"), "s": pd.array([-128, 127] * 100, "Int8"), "c": frame["word"]}
    )
    model = VAE(1, **QUICK).fit(X)
    drawn = model.sample(500, random_state=0)
    assert drawn.dtypes.tolist() == X.dtypes.tolist()
    assert drawn["u"].max() < 50
    holes = X.astype({"u": "UInt8"}).mask(np.random.RandomState(0).rand(200, 3) < 0.3)
    for filled in VAE(1, **QUICK).fit(holes).impute(holes, n_draws=3, random_state=0):
        assert not filled.isna().any().any()
    polars = pl.from_pandas(X)
    assert VAE(1, **QUICK).fit(polars).sample(50, random_state=0).schema == polars.schema


def test_a_column_whose_categories_are_all_unknown(frame):
    model = AutoEncoder(2, **QUICK).fit(frame)
    with pytest.warns(UserWarning, match="Column 'word' has no category that fit has seen"):
        model.transform(frame.assign(word=1.0))
    intervals = frame.assign(size=pd.cut(frame["size"], 4))
    model = AutoEncoder(2, **QUICK).fit(intervals)
    assert model.inverse_transform(model.transform(intervals)).dtypes.tolist() == intervals.dtypes.tolist()


# A condition in a table.


CONDITION = dict(condition_features=["color", "age"])


@pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
def test_a_condition_in_a_table_and_back(frame, library):
    X = with_holes(frame) if library is pd else pl.from_pandas(with_holes(frame))
    model = skae.ConditionalVAE(2, **CONDITION, **QUICK).fit(X)
    codes = model.transform(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).transform(X), codes)
    back = model.inverse_transform(codes, condition=X[["color", "age"]])
    assert type(back) is type(X)
    assert list(back.columns) == list(X.columns)
    assert list(back.dtypes) == list(X.dtypes)
    assert [str(value) for value in back["color"]] == [str(value) for value in X["color"]]  # as it was given
    drawn = model.sample(20, condition=["red", 40], random_state=0)
    assert list(drawn.dtypes) == list(X.dtypes)
    assert set(drawn["color"]) == {"red"}
    assert np.isfinite(model.partial_fit(X).score(X))


def test_a_condition_with_missing_and_unknown_cells(frame):
    model = skae.ConditionalVAE(2, **CONDITION, **QUICK).fit(with_holes(frame))
    assert model.n_conditions_ == 3 + 1 + 2  # categories that are there, a number, and where either is missing
    colored = frame.astype({"color": object})
    unknown, missing = (colored.assign(color=np.where(colored.index < 9, value, "red")) for value in ("pink", None))
    np.testing.assert_array_equal(model.transform(unknown), model.transform(missing))
    assert not np.array_equal(model.transform(missing)[:9], model.transform(colored.assign(color="red"))[:9])
    with pytest.raises(ValueError, match="Cells of the condition are missing"):
        model.impute(missing)
    codes = model.transform(frame)
    given = model.inverse_transform(codes[:2], condition=pd.DataFrame({"color": ["red", None], "age": [1, 2]}))
    assert given["color"].isna().tolist() == [False, True]
    whole = model.inverse_transform(codes[:2], condition=[["red", None], ["red", 40]])
    assert whole["age"].isna().tolist() == [True, False]
    with pytest.raises(ValueError, match="condition has 'old' in column 'age', which must be a number"):
        model.sample(2, condition=["red", "old"])
    by_name = model.inverse_transform(codes[:1], condition=pd.Series({"age": 40, "color": "red"}))
    pd.testing.assert_frame_equal(by_name, model.inverse_transform(codes[:1], condition=["red", 40]))


def test_rows_with_a_condition_do_not_depend_on_those_beside_them(frame):
    X = with_holes(frame).assign(color=frame["color"], age=frame["age"])
    model = skae.ConditionalVAE(2, **CONDITION, **QUICK).fit(X)
    order = np.random.RandomState(0).permutation(len(X))
    np.testing.assert_allclose(model.transform(X.iloc[order]), model.transform(X)[order], atol=1e-7)
    filled = model.impute(X)
    pd.testing.assert_frame_equal(model.impute(X.iloc[order]), filled.iloc[order])
    seen = X.notna().to_numpy()
    assert filled.notna().all().all()
    assert (filled.astype(object).where(seen, 0) == X.astype(object).where(seen, 0)).all().all()
    first, second = model.impute(X, n_draws=2, random_state=0)
    assert not first.equals(second)


def test_a_linear_model_with_a_condition_and_missing_cells_is_exact(numbers):
    rng = np.random.RandomState(0)
    given = rng.standard_normal((len(numbers), 2))
    X = np.column_stack([punched(numbers + given @ rng.standard_normal((2, 8))), given])
    model = skae.ConditionalVAE(2, condition_features=[8, 9], hidden_layer_sizes=(), max_iter=1, random_state=0).fit(X)
    linear, module = model.module_.decoder.linear, model.module_
    weight, bias = linear.weight.detach().numpy(), linear.bias.detach().numpy()
    covariance = model.scale_**2 * (
        weight[:, :2] @ weight[:, :2].T + float(module.log_noise.detach().exp()) * np.eye(8)
    )
    condition = (given - given.mean(0)) / given.std(0)
    means = model.mean_ + model.scale_ * (bias + condition @ weight[:, 2:].T)
    scores, filled = model.score_samples(X, n_draws=1), model.impute(X)
    for row, mean, score, found in zip(X[:40, :8], means, scores, filled[:, :8], strict=False):
        seen = ~np.isnan(row)
        exact = multivariate_normal(mean[seen], covariance[np.ix_(seen, seen)]).logpdf(row[seen]) if seen.any() else 0
        assert score == pytest.approx(exact, abs=0.1)
        weights = np.linalg.solve(covariance[np.ix_(seen, seen)], row[seen] - mean[seen])
        np.testing.assert_allclose(found[~seen], mean[~seen] + covariance[np.ix_(~seen, seen)] @ weights, atol=0.05)


def test_a_conditional_model_of_complete_rows_fills_holes(numbers):
    rng = np.random.RandomState(0)
    given = rng.standard_normal((len(numbers), 1))
    X = np.column_stack([numbers + 3 * given, given])
    holed = X.copy()
    holed[:50, 0] = np.nan
    model = skae.ConditionalVAE(4, condition_features=[8], max_iter=10, random_state=0).fit(X)
    error = np.square(model.impute(holed)[:50, 0] - X[:50, 0]).mean()
    assert error < 0.5 * X[:50, 0].var()
    assert np.isfinite(model.partial_fit(holed).score(holed))
    with_val = skae.ConditionalVAE(4, condition_features=[8], **QUICK).fit(X, X_val=holed)
    assert with_val.module_.fills


def test_an_array_of_numbers_with_categories_comes_back_as_one(numbers):
    X = np.column_stack([numbers, np.arange(len(numbers)) % 3]).astype(np.float32)
    model = AutoEncoder(3, categorical_features=[8], **QUICK).fit(X)
    back = model.inverse_transform(model.transform(X))
    assert back.dtype == np.float32
    assert set(back[:, 8]) <= {0, 1, 2}


# Theory.


def test_without_missing_cells_em_finds_the_principal_axes(numbers):
    pca = PCA(3).fit(numbers)
    axes = observed_axes(torch.from_numpy(numbers), 3)
    ratio = (len(numbers) - 1) / len(numbers)  # maximum likelihood divides by n
    axes = axes._replace(axes=axes.axes.numpy(), variances=axes.variances.numpy())
    np.testing.assert_allclose(axes.variances, pca.explained_variance_ * ratio, rtol=1e-4)
    np.testing.assert_allclose(np.abs(axes.axes @ pca.components_.T), np.eye(3), atol=2e-3)
    noise = (axes.total - axes.variances.sum()) / 5
    np.testing.assert_allclose(noise, pca.noise_variance_ * ratio, rtol=1e-4)


def density(X, loadings, mean, noise):
    """Log-density of the observed cells of each row, one by one."""
    covariance = loadings @ loadings.T + noise * np.eye(len(mean))
    values = []
    for row in X:
        seen = ~np.isnan(row)
        values.append(multivariate_normal(mean[seen], covariance[np.ix_(seen, seen)]).logpdf(row[seen]))
    return np.array(values)


def test_linear_vae_is_probabilistic_pca_of_the_observed_cells(numbers):
    X = punched(numbers)
    model = VAE(3, hidden_layer_sizes=(), max_iter=1, random_state=0).fit(X)
    assert model.best_iter_ == 0
    axes = observed_axes(torch.from_numpy(X), 3)
    loadings, noise = factor_model(axes, 3)
    expected = density(X, loadings.numpy(), axes.mean.numpy(), float(noise))
    bound, _, _ = model.elbo(X)  # exact, as the posterior is
    np.testing.assert_allclose(bound.mean(), expected.mean(), atol=1e-4)
    np.testing.assert_allclose(model.score_samples(X), bound, atol=1e-5)


def test_the_posterior_is_exact_for_every_pattern():
    rng = np.random.RandomState(0)
    loadings, noise, x = rng.standard_normal((6, 2)), rng.rand(6) + 0.1, rng.standard_normal(6)
    for pattern in range(64):
        seen = np.array([pattern >> j & 1 for j in range(6)], dtype=bool)
        precision = np.eye(2) + (loadings[seen].T / noise[seen]) @ loadings[seen]
        expected = np.linalg.solve(precision, (loadings[seen].T / noise[seen]) @ x[seen])
        tensors = torch.from_numpy(np.where(seen, x, 0)), torch.from_numpy(seen / noise), torch.from_numpy(loadings)
        mean, factor = observed_posterior(tensors[0][None], tensors[1][None], tensors[2])
        np.testing.assert_allclose(mean[0], expected, atol=1e-6)
        np.testing.assert_allclose((factor @ factor.mT)[0], precision, atol=1e-6)


def coded(frame):
    """FAMD by hand: z-scores, and indicators less their share, divided by its root."""
    parts = []
    for name in frame:
        if frame[name].dtype.kind == "f":
            parts.append(((frame[name] - frame[name].mean()) / frame[name].std(ddof=0)).to_numpy()[:, None])
        else:
            indicators = pd.get_dummies(frame[name].astype(object)).to_numpy(dtype=float)
            shares = indicators.mean(0)
            parts.append((indicators - shares) / np.sqrt(shares))
    return np.hstack(parts)


def test_the_fallback_of_mixed_columns_is_famd(frame):
    frame = frame[["size", "income", "color", "word", "flag"]].astype({"income": float})
    frame["color"] = frame["color"].cat.remove_unused_categories()
    model = AutoEncoder(3, hidden_layer_sizes=(), **QUICK).fit(frame)
    expected = PCA(3).fit_transform(coded(frame))
    codes = model.transform(frame)
    np.testing.assert_allclose(np.abs(codes), np.abs(expected), atol=1e-5 * np.abs(expected).max())


def test_columns_count_alike_in_the_squared_error(frame):
    X = pd.DataFrame({"number": frame["size"], "category": [f"c{i % 40}" for i in range(200)]})
    model = AutoEncoder(1, max_iter=1, random_state=0).fit(X)
    total, _ = model._sums_of_squares(model._validate(X), np.full(200, 1 / 200))
    np.testing.assert_allclose(total[0], total[1:].sum(), rtol=1e-6)


def test_the_likelihood_of_categories_is_a_probability():
    X = pd.DataFrame({"a": ["x", "y", "y", "z"] * 30, "b": ["p", "q"] * 60})
    model = VAE(2, max_iter=2, random_state=0).fit(X)
    every = pd.DataFrame([(a, b) for a in "xyz" for b in "pq"], columns=["a", "b"])
    x = model._scaler_.transform(torch.from_numpy(model._validate(every)))
    z = torch.randn(5, 1, 2, dtype=torch.float64).expand(5, 6, 2)
    likelihood = model._log_likelihood(model.module_, x, z).exp()
    torch.testing.assert_close(likelihood.sum(-1), torch.ones(5, dtype=torch.float64))
    known = model._log_likelihood(model.module_, model._scaler_.transform(torch.tensor([[0.0, torch.nan]])), z[:, :1])
    torch.testing.assert_close(known.exp(), likelihood[:, :2].sum(-1, keepdim=True))  # what is missing is summed out


def test_density_is_in_the_units_of_the_table(frame):
    scaled = frame.assign(size=frame["size"] * 1000)
    plain, other = (VAE(2, **QUICK).fit(table).score_samples(table) for table in (frame, scaled))
    np.testing.assert_allclose(plain - other, np.log(1000), atol=1e-3)


def test_noise_is_not_narrower_than_half_the_gap_of_atoms():
    X = pd.DataFrame({"ones": np.arange(200) % 3 * 1.0, "word": ["a", "b", "c", "d"] * 50})
    model = VAE(4, max_iter=30, random_state=0).fit(X)
    deviation = np.sqrt(np.exp(model.module_.log_noise.detach().numpy()[0])) * X["ones"].std(ddof=0)
    assert deviation >= 0.5 * (1 - 1e-3)


def test_impute_is_the_conditional_mean_of_a_linear_model(numbers):
    X = punched(numbers)
    model = VAE(2, hidden_layer_sizes=(), max_iter=1, random_state=0).fit(X)
    axes = observed_axes(torch.from_numpy(X), 2)
    loadings, noise = (a.numpy() for a in factor_model(axes, 2))
    mean, covariance = axes.mean.numpy(), loadings @ loadings.T + noise * np.eye(8)
    filled = model.impute(X)
    for row, found in zip(X[:40], filled, strict=False):
        seen = ~np.isnan(row)
        weights = np.linalg.solve(covariance[np.ix_(seen, seen)], row[seen] - mean[seen])
        expected = mean[~seen] + covariance[np.ix_(~seen, seen)] @ weights
        np.testing.assert_allclose(found[~seen], expected, atol=0.02)
    draws = np.stack(model.impute(X, n_draws=400, random_state=0))
    row = np.flatnonzero(np.isnan(X).sum(1) == 3)[0]
    seen = ~np.isnan(X[row])
    inverse = np.linalg.inv(covariance[np.ix_(seen, seen)])
    rest = (
        covariance[np.ix_(~seen, ~seen)] - covariance[np.ix_(~seen, seen)] @ inverse @ covariance[np.ix_(seen, ~seen)]
    )
    np.testing.assert_allclose(draws[:, row, ~seen].var(axis=0), np.diag(rest), rtol=0.35)


# The imputer.


@parametrize_with_checks(
    [
        AutoEncoderImputer(VAE(2, max_iter=2, random_state=0)),
        AutoEncoderImputer(AutoEncoder(2, max_iter=2, random_state=0)),
    ]
)
def test_sklearn_checks_of_the_imputer(estimator, check):
    check(estimator)


def test_it_imputes_better_than_neighbors_and_means():
    X = load_iris().data
    X = (X - X.mean(0)) / X.std(0)
    holes = punched(X, 0.4, seed=3)
    missing = np.isnan(holes)

    def error(imputer):
        return np.mean((imputer.fit_transform(holes) - X)[missing] ** 2)

    ours = error(AutoEncoderImputer(random_state=0))
    assert ours < error(KNNImputer(n_neighbors=10))
    assert ours < 0.6


@pytest.mark.parametrize("estimator", [AutoEncoder(2, **QUICK), DenoisingAutoEncoder(2, **QUICK), VAE(2, **QUICK)])
def test_any_member_imputes(estimator, frame, numbers):
    imputer = AutoEncoderImputer(estimator)
    assert not imputer.fit_transform(with_holes(frame)).isna().any().any()
    X = punched(numbers)
    filled = clone(imputer).fit(numbers).transform(X)  # fitted to complete rows
    missing = np.isnan(X)
    assert np.mean((filled - numbers)[missing] ** 2) < 0.7 * np.mean(numbers[missing] ** 2)


def test_the_imputer_in_pipelines_and_searches(frame):
    holes = with_holes(frame.drop(columns="income"))
    pipeline = make_pipeline(
        AutoEncoderImputer(VAE(2, **QUICK)), HistGradientBoostingRegressor(max_iter=5, categorical_features=[3])
    )
    search = GridSearchCV(
        pipeline[:1], {"autoencoderimputer__estimator__n_components": [1, 2]}, scoring=lambda *_: 0.0, cv=2
    )
    search.fit(holes)
    holes = holes[["size", "age", "weight", "color"]]
    assert np.isfinite(pipeline.fit(holes, frame["income"]).predict(holes)).all()


def test_indicators_and_empty_features(frame):
    X = pd.DataFrame({"a": [1.0, np.nan, 3, 4] * 10, "none": [np.nan] * 40, "b": np.arange(40.0)})
    model = VAE(1, **QUICK)
    assert AutoEncoderImputer(model).fit_transform(X).shape == (40, 2)
    kept = AutoEncoderImputer(model, keep_empty_features=True, add_indicator=True).fit(X)
    names = ["a", "none", "b", "missingindicator_a", "missingindicator_none"]
    assert kept.get_feature_names_out().tolist() == names
    out = kept.transform(X)
    np.testing.assert_array_equal(out[:, 1], 0)
    np.testing.assert_array_equal(out[:, 3], X["a"].isna())
    assert kept.set_output(transform="pandas").transform(X).columns.tolist() == names
    mixed = with_holes(frame)
    out = AutoEncoderImputer(model, add_indicator=True).fit_transform(mixed)
    assert out.columns.tolist()[len(mixed.columns) :] == [f"missingindicator_{name}" for name in mixed]


def test_categories_that_are_numbers_are_imputed_by_categories():
    X = np.c_[np.arange(60) % 3, np.arange(60) % 3 * 10.0 + np.arange(60) / 60]
    X[::7, 0] = np.nan
    filled = AutoEncoderImputer(VAE(1, categorical_features=[0], **QUICK)).fit_transform(X)
    assert set(filled[:, 0]) == {0.0, 1.0, 2.0}


def test_units_do_not_matter(numbers):
    X = punched(numbers)
    scale = 10.0 ** np.arange(-3, 5)
    plain, scaled = (AutoEncoderImputer(VAE(2, **QUICK)).fit_transform(table) for table in (X, X * scale + 7))
    np.testing.assert_allclose((scaled - 7) / scale, plain, atol=1e-3)
    np.testing.assert_array_equal(scaled[~np.isnan(X)], (X * scale + 7)[~np.isnan(X)])


def test_sample_posterior(numbers):
    X = punched(numbers)
    best, drawn = (AutoEncoderImputer(VAE(2, **QUICK), sample_posterior=s, random_state=0) for s in (False, True))
    missing = np.isnan(X)
    assert drawn.fit_transform(X)[missing].var() > best.fit_transform(X)[missing].var()
    with pytest.raises(ValueError, match="needs an estimator with the method impute"):
        AutoEncoderImputer(AutoEncoder(2, **QUICK), sample_posterior=True).fit(X)


# Bad input.


class OwnNetwork(AutoEncoder):
    def _build_module(self, n_features, n_components, scale):
        return super()._build_module(n_features, n_components, scale)


def columns(**values):
    return pd.DataFrame({"x": np.arange(30.0), **values})


BAD = {
    "empty column": (columns(a=[None] * 30), ValueError, "observed value"),
    "empty number": (np.c_[np.arange(30.0), np.full(30, np.nan)], ValueError, "without an observed value"),
    "10,000 categories": (pd.DataFrame({"id": [f"c{i}" for i in range(10_000)]}), ValueError, "10000 categories"),
    "infinity": (columns(a=["u", "v"] * 15, b=np.r_[np.inf, np.zeros(29)]), ValueError, "infinity"),
    "infinity of numbers": (np.r_[[[np.inf, 1.0]], np.zeros((9, 2))], ValueError, "infinity"),
    "mixed types": (columns(a=[1, "b"] * 15), ValueError, "mixes types"),
    "mixed types in an array": (np.array([[1, 2.0], ["b", 3.0]] * 9, dtype=object), ValueError, "mixes types"),
    "bool and string": (columns(a=pd.Series([True, "b"] * 15, dtype=object)), ValueError, "mixes types"),
    "names twice": (
        pd.DataFrame([["a", 1.0]] * 9, columns=["n", "n"]),
        ValueError,
        "more than one column with the name 'n'",
    ),
    "dates": (columns(a=pd.date_range("2020-01-01", periods=30)), ValueError, "Make it a number"),
    "dates as objects": (columns(a=[pd.Timestamp("2020-01-01")] * 30).astype(object), ValueError, "number"),
    "durations": (columns(a=pd.to_timedelta(np.arange(30), unit="D")), ValueError, "Make it a number"),
    "dates of polars": (pl.DataFrame({"a": [pd.Timestamp("2020-01-01")] * 9}), ValueError, "Make it a number"),
    "lists": (columns(a=[[1, 2]] * 30), TypeError, "must be a string or a real number"),
    "dictionaries": (np.array([[{"a": 1}, 1.0]] * 9, dtype=object), TypeError, "must be a string or a real number"),
    "no rows": (columns(a="x").head(0), ValueError, "0 sample"),
    "complex": (columns(a=["u", "v"] * 15, b=1j), ValueError, "Complex data not supported"),
    "too large": (columns(a=["u", "v"] * 15, b=np.r_[1e200, np.zeros(29)]), ValueError, "too large"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables(case):
    X, error, message = BAD[case]
    model = AutoEncoder(1, **QUICK)
    with pytest.raises(error, match=message):
        model.fit(X)
    assert not [name for name in vars(model) if name.endswith("_")]


@pytest.mark.parametrize(
    ("model", "X", "error", "message"),
    [
        (AutoEncoder(1, categorical_features=["no"]), columns(), ValueError, "not columns"),
        (AutoEncoder(1, categorical_features=[5]), columns(), ValueError, "all features must be in"),
        (AutoEncoder(1, categorical_features="some"), columns(), ValueError, "categorical_features"),
        (VAE(1, likelihood="bernoulli"), columns(a="x"), ValueError, "takes none"),
        (AutoEncoder(1, loss="binary_cross_entropy"), columns(a="x"), ValueError, "takes none"),
        (OwnNetwork(1), columns(a=["x", "y"] * 15), TypeError, r"takes no columns"),
        (OwnNetwork(1), punched(np.ones((30, 2)) * np.arange(2)), TypeError, r"takes no columns"),
        (VAE(1, n_draws=0), columns(), ValueError, "n_draws"),
        (VAE(1, n_draws=3, beta=2.0), columns(), ValueError, "n_draws=3 maximizes a bound"),
        (VAE(1, n_draws=3, free_bits=0.1), columns(), ValueError, "n_draws=3 maximizes a bound"),
    ],
)
def test_bad_parameters(model, X, error, message):
    with pytest.raises(error, match=message):
        model.set_params(**QUICK).fit(X)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda X: X.rename(columns={"word": "other"}), ValueError, "feature names should match"),
        (lambda X: X.drop(columns="word"), ValueError, "feature names should match"),
        (lambda X: X.assign(size="text"), ValueError, "is not of numbers"),
        (lambda X: X.assign(size=np.inf), ValueError, "infinity"),
        (lambda X: X.to_numpy(dtype=object)[:, :3], ValueError, "X has 3 features, but VAE is expecting 9"),
    ],
)
def test_bad_new_tables(frame, change, error, message):
    model = VAE(2, **QUICK).fit(frame)
    before = model.transform(frame)
    for method in ("transform", "score_samples", "impute", "partial_fit"):
        with warnings.catch_warnings(), pytest.raises(error, match=message):
            warnings.simplefilter("ignore", UserWarning)  # an array has no names
            getattr(model, method)(change(frame))
    np.testing.assert_array_equal(model.transform(frame), before)


def test_a_category_that_only_new_rows_have(frame):
    model = AutoEncoder(2, **QUICK).fit(frame)
    changed = frame.astype({"city": object})
    changed.loc[:50, "city"] = "Rome"
    assert np.isfinite(model.transform(changed)).all()


def test_sparse_rows_have_no_missing_cells(numbers):
    from scipy import sparse

    X = sparse.csr_array(numbers)
    X.data[3] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        AutoEncoder(2, **QUICK).fit(X)
    with pytest.raises(TypeError, match="Sparse"):
        AutoEncoder(2, categorical_features=[0], **QUICK).fit(sparse.csr_array(numbers))
    with pytest.raises(TypeError, match="Sparse"):
        AutoEncoderImputer().fit(sparse.csr_array(numbers))


def test_a_warm_start_and_validation_rows(frame):
    holes = with_holes(frame)
    model = AutoEncoder(2, warm_start=True, **QUICK).fit(holes, X_val=frame.tail(30))
    first = model.n_iter_
    assert model.fit(holes).n_iter_ == first
    weighted = AutoEncoder(2, **QUICK).fit(holes, sample_weight=np.arange(200) % 3)
    assert np.isfinite(weighted.transform(holes)).all()
    AutoEncoder(2, cv=3, **QUICK).fit(holes)
    AutoEncoder(0.8, **QUICK).fit(holes)
    AutoEncoder(30, **QUICK).fit(holes)
