"""The members beyond the first three: limits in which they are AutoEncoder, VAE, k-means; and what each promises."""

import pickle
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import is_clusterer
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, make_blobs, make_moons
from sklearn.decomposition import PCA, sparse_encode
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression
from sklearn.metrics import adjusted_rand_score, r2_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils._param_validation import InvalidParameterError

from skae import VAE, VQVAE, AdversarialAutoEncoder, AutoEncoder, ConditionalVAE, ContractiveAutoEncoder
from skae import SparseAutoEncoder as Sparse
from skae._adam import adam
from skae._contractive import encode_with_jacobian
from skae._layers import LinearPlusPerceptron

QUICK = dict(max_iter=5, random_state=0)
# The initialization, to the last digits: steps too small to move a weight.
INITIAL = dict(max_iter=1, learning_rate_init=1e-12, random_state=0)


def same_weights(first, second):
    first, second = first.module_.state_dict(), second.module_.state_dict()
    return all(torch.equal(first[name], second[name]) for name in second)


def same_reconstructions(first, second, X):
    """Of models whose networks are the same, but whose components are not in the same order or directions."""
    x_hat, expected = (model.inverse_transform(model.transform(X)) for model in (first, second))
    return first.loss_curve_ == second.loss_curve_ and np.allclose(x_hat, expected, atol=4e-6)


# SparseAutoEncoder.


def test_with_every_entry_active_it_is_a_linear_autoencoder(digits):
    options = dict(hidden_layer_sizes=(), init="random", max_iter=20, random_state=0)
    model, plain = Sparse(10, n_active=10, **options).fit(digits), AutoEncoder(10, **options).fit(digits)
    assert same_reconstructions(model, plain, digits)


@pytest.mark.parametrize("n_active", [1, 5, 30])
def test_top_k_leaves_exactly_k_active(digits, n_active):
    model = Sparse(100, n_active=n_active, **QUICK).fit(digits)
    assert ((model.transform(digits) != 0).sum(axis=1) == n_active).all()


def test_top_k_keeps_the_entries_that_matter_most(digits):
    model = Sparse(20, n_active=4, **QUICK).fit(digits)
    x = torch.tensor((digits - model.mean_) / model.scale_)
    with torch.no_grad():
        weight = model.module_.encoder(x).abs() * model.module_.decoder.linear.weight.norm(dim=0)
    kept = torch.tensor(model.transform(digits)) != 0
    assert (weight.masked_fill(~kept, torch.inf).amin(1) >= weight.masked_fill(kept, 0).amax(1)).all()


@pytest.mark.parametrize("sparsity", [0.5, 3.0])
def test_l1_codes_of_an_orthogonal_dictionary_solve_the_lasso(digits, sparsity):
    model = Sparse(20, penalty="l1", sparsity=sparsity, hidden_layer_sizes=(), **INITIAL).fit(digits)
    norms = np.linalg.norm(model.components_, axis=1)
    expected = sparse_encode(
        digits - model.mean_,
        model.components_ / norms[:, None],
        algorithm="lasso_cd",
        alpha=sparsity / 2 * model.scale_,
    )
    np.testing.assert_allclose(model.transform(digits) * norms, expected, atol=1e-5)
    assert 0.05 < (expected != 0).mean() < 0.9


def test_l1_without_a_weight_is_a_linear_autoencoder(digits):
    options = dict(hidden_layer_sizes=(), init="random", max_iter=5, random_state=0)
    sparse_model = Sparse(10, penalty="l1", sparsity=0, **options).fit(digits)
    assert same_reconstructions(sparse_model, AutoEncoder(10, **options).fit(digits), digits)


def test_more_weight_leaves_fewer_active(digits):
    active = [
        (Sparse(60, penalty="l1", sparsity=s, max_iter=8, random_state=0).fit(digits).transform(digits) != 0).mean()
        for s in (0.3, 1, 3)
    ]
    assert active[0] > 1.5 * active[1] > 2 * active[2] > 0


@pytest.mark.parametrize("rho", [0.05, 0.2])
def test_kl_reaches_its_target_activity(digits, rho):
    train, test = train_test_split(digits, random_state=0)
    model = Sparse(50, penalty="kl", rho=rho, max_iter=80, random_state=0).fit(train)
    activity = model.transform(test)
    assert activity.min() >= 0
    assert activity.max() <= 1
    assert activity.mean() == pytest.approx(rho, rel=0.2)
    assert model.score(test) > 0.8


@pytest.mark.parametrize("penalty", ["top_k", "l1", "kl"])
def test_components_are_the_dictionary(digits, penalty):
    model = Sparse(30, penalty=penalty, **QUICK).fit(digits)
    codes = model.transform(digits)
    constant = model.inverse_transform(np.zeros((1, 30)))
    np.testing.assert_allclose(codes @ model.components_ + constant, model.inverse_transform(codes), atol=1e-9)


def test_sparse_output(digits):
    dense = Sparse(40, n_active=3, **QUICK).fit(digits)
    model = Sparse(40, n_active=3, sparse_output=True, **QUICK).fit(digits)
    codes = model.transform(digits)
    assert sparse.issparse(codes)
    assert codes.nnz == 3 * len(digits)
    np.testing.assert_array_equal(codes.toarray(), dense.transform(digits))
    np.testing.assert_array_equal(model.inverse_transform(codes), dense.inverse_transform(codes.toarray()))
    assert make_pipeline(model, SVC()).fit(digits, digits[:, 30] > 0.5).score(digits, digits[:, 30] > 0.5) > 0.8


# ContractiveAutoEncoder.


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu", "gelu", "silu"])
@pytest.mark.parametrize("hidden", [(), (7,), (4,), (7, 5), (4, 9), (7, 5, 6)])
def test_jacobian_is_that_of_automatic_differentiation(activation, hidden):
    torch.manual_seed(0)
    encoder = LinearPlusPerceptron(5, hidden, 3, activation).double()
    x = torch.randn(6, 5, dtype=torch.float64)
    z, found = encode_with_jacobian(encoder, x)
    jacobians = [torch.autograd.functional.jacobian(encoder, row) for row in x]
    torch.testing.assert_close(found, torch.stack([j.square().sum() for j in jacobians]), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(z, encoder(x))
    with torch.no_grad():
        torch.testing.assert_close(encode_with_jacobian(encoder, x)[1], found)


@pytest.mark.parametrize("hidden", [(4,), (4, 3)])
def test_jacobian_can_be_trained_on(hidden):
    torch.manual_seed(0)
    encoder = LinearPlusPerceptron(3, hidden, 2, "silu").double()
    x = torch.randn(2, 3, dtype=torch.float64)
    weights = list(encoder.parameters())
    names = [name for name, _ in encoder.named_parameters()]

    def norm(*values):
        encoder.load_state_dict(dict(zip(names, values, strict=True)))
        with torch.no_grad():
            return float(encode_with_jacobian(encoder, x)[1].sum())

    start = [w.detach().clone() for w in weights]
    encode_with_jacobian(encoder, x)[1].sum().backward()
    gradients = [torch.zeros_like(w) if w.grad is None else w.grad.clone() for w in weights]
    for place, gradient in enumerate(gradients):
        step = torch.randn_like(gradient)
        up, down = (
            [w + sign * 1e-5 * step * (i == place) if i == place else w for i, w in enumerate(start)]
            for sign in (1, -1)
        )
        slope = (norm(*up) - norm(*down)) / 2e-5
        assert slope == pytest.approx(float((gradient * step).sum()), rel=1e-6, abs=1e-8)


def test_closed_forms_of_the_contraction():
    torch.manual_seed(0)
    x = torch.randn(9, 4, dtype=torch.float64)
    linear = LinearPlusPerceptron(4, (), 3, "silu").double()
    torch.testing.assert_close(encode_with_jacobian(linear, x)[1], linear.linear.weight.square().sum().expand(9))
    # sigmoid units, whose output is the code: sum_j (h_j (1 - h_j))^2 ||w_j||^2 (Rifai et al. 2011, eq. 7)
    units = LinearPlusPerceptron(4, (3,), 3, "logistic").double()
    with torch.no_grad():
        units.linear.weight.zero_()
        units.perceptron[2].weight.copy_(torch.eye(3))
        h = units.perceptron[1](units.perceptron[0](x))
        expected = ((h * (1 - h)).square() * units.perceptron[0].weight.square().sum(1)).sum(1)
    torch.testing.assert_close(encode_with_jacobian(units, x)[1], expected, rtol=1e-9, atol=0)


def test_without_contraction_it_is_autoencoder(digits):
    options = dict(max_iter=10, random_state=0)
    assert same_weights(
        ContractiveAutoEncoder(3, contraction=0, **options).fit(digits), AutoEncoder(3, **options).fit(digits)
    )


def test_noise_moves_held_out_codes_less_at_no_loss_of_reconstruction(digits):
    train, test = train_test_split(digits, random_state=0)
    noisy = test + 0.1 * np.random.RandomState(0).standard_normal(test.shape)
    shares, scores = [], []
    for model in (
        AutoEncoder(10, max_iter=30, random_state=0),
        ContractiveAutoEncoder(10, max_iter=30, random_state=0),
    ):
        codes = model.fit(train).transform(test)
        shares.append(np.square(model.transform(noisy) - codes).sum() / np.square(codes - codes.mean(axis=0)).sum())
        scores.append(model.score(test))
    assert shares[1] < 0.7 * shares[0]
    assert scores[1] > scores[0] - 0.002


# ConditionalVAE.


@pytest.fixture(scope="module")
def labelled():
    X, y = load_digits(return_X_y=True)
    return np.column_stack([X / 16, y])


@pytest.fixture(scope="module")
def frame():
    rng = np.random.RandomState(0)
    sex = rng.choice(["female", "male"], 1000)
    age = rng.uniform(20, 70, 1000)
    height = 165 + 12 * (sex == "male") + 5 * rng.standard_normal(1000)
    weight = 0.9 * height - 90 + 0.2 * age + 4 * rng.standard_normal(1000)
    reach = height + 2 * rng.standard_normal(1000)
    return pd.DataFrame({"sex": sex, "height": height, "age": age, "weight": weight, "reach": reach})


DIGIT = dict(condition_features=[64], categorical_features=[64])


@pytest.mark.parametrize("nothing", [None, []])
def test_without_a_condition_it_is_vae(digits, nothing):
    model = ConditionalVAE(4, condition_features=nothing, **QUICK).fit(digits)
    vae = VAE(4, **QUICK).fit(digits)
    assert same_weights(model, vae)
    np.testing.assert_array_equal(model.score_samples(digits[:20]), vae.score_samples(digits[:20]))
    np.testing.assert_array_equal(model.sample(3, random_state=0), vae.sample(3, random_state=0))


def test_a_condition_that_is_always_the_same_tells_nothing(digits):
    constant = np.column_stack([np.full(len(digits), 7.0), digits])
    model = ConditionalVAE(4, condition_features=[0], hidden_layer_sizes=(), **INITIAL).fit(constant)
    vae = VAE(4, hidden_layer_sizes=(), **INITIAL).fit(digits)
    np.testing.assert_allclose(model.score_samples(constant[:50]), vae.score_samples(digits[:50]), atol=1e-4)


def test_digits_drawn_of_a_class_are_recognized(labelled):
    judge = SVC(C=10).fit(labelled[:, :64], labelled[:, 64])
    model = ConditionalVAE(4, **DIGIT, max_iter=50, random_state=0).fit(labelled)
    wanted = np.repeat(np.arange(10), 50)
    drawn = model.sample(500, condition=wanted[:, None], random_state=0)
    np.testing.assert_array_equal(drawn[:, 64], wanted)
    assert (judge.predict(drawn[:, :64]) == wanted).mean() >= 0.95


def test_condition_raises_the_likelihood_and_leaves_the_code(labelled):
    train, test = train_test_split(labelled, random_state=0)
    given = ConditionalVAE(2, **DIGIT, max_iter=40, random_state=0).fit(train)
    blind = VAE(2, max_iter=40, random_state=0).fit(train[:, :64])
    assert given.score(test) > blind.score(test[:, :64]) + 3
    judge = make_pipeline(StandardScaler(), SVC())
    with_class, without = (
        judge.fit(model.transform(rows), train[:, 64]).score(model.transform(held), test[:, 64])
        for model, rows, held in ((blind, train[:, :64], test[:, :64]), (given, train, test))
    )
    assert without < with_class - 0.1  # the class is given, so that the code need not tell it


@pytest.mark.parametrize("n_rows", [12, 27, 200])
def test_few_rows_still_heed_the_condition(n_rows):
    rng = np.random.RandomState(0)
    group = np.arange(n_rows) % 2
    X = np.column_stack([group[:, None] * 10 + rng.standard_normal((n_rows, 3)), group])
    model = ConditionalVAE(1, condition_features=[3], categorical_features=[3], max_iter=20, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the condition may tell all there is
        model.fit(X)
    means = [model.sample(500, condition=[g], random_state=0)[:, :3].mean() for g in (0, 1)]
    assert means[1] - means[0] == pytest.approx(10, abs=1)


def test_linear_initialization_is_regression_and_probabilistic_pca(frame):
    modelled = frame[["height", "weight", "reach"]].to_numpy()
    given = np.column_stack([frame["sex"] == "male", frame["age"]]).astype(float)
    options = dict(hidden_layer_sizes=(), early_stopping=False, **INITIAL)
    model = ConditionalVAE(1, condition_features=["sex", "age"], **options).fit(frame)
    left = modelled - LinearRegression().fit(given, modelled).predict(given)
    np.testing.assert_allclose(model.score_samples(frame), PCA(1).fit(left).score_samples(left), atol=1e-3)


def test_counterfactuals_in_a_data_frame(frame):
    model = ConditionalVAE(2, condition_features=["sex", "age"], random_state=0).fit(frame)
    assert model.n_conditions_ == 3
    Z = model.transform(frame)
    women, men = (model.inverse_transform(Z, condition=[sex, 40]) for sex in ("female", "male"))
    assert women.shape == frame.shape
    assert women.dtypes.tolist() == frame.dtypes.tolist()
    assert set(women["sex"]) == {"female"}
    assert 8 < (men["height"] - women["height"]).mean() < 16  # they differ by 12 on the whole
    own = model.inverse_transform(Z, condition=frame[["sex", "age"]].to_numpy())
    modelled = ["height", "weight", "reach"]
    assert r2_score(frame[modelled], own[modelled], multioutput="variance_weighted") > 0.9
    by_name = model.inverse_transform(Z, condition=frame[["age", "sex"]])  # in another order
    pd.testing.assert_frame_equal(by_name, own)
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.transform(frame), Z)
    model.partial_fit(frame)


def test_names_indices_and_arrays_say_the_same(labelled):
    names = [f"pixel{i}" for i in range(64)] + ["digit"]
    table = pd.DataFrame(labelled, columns=names)
    by_index = ConditionalVAE(2, **DIGIT, **QUICK).fit(labelled)
    by_name = ConditionalVAE(2, condition_features=["digit"], categorical_features=["digit"], **QUICK).fit(table)
    by_type = ConditionalVAE(2, condition_features=["digit"], **QUICK).fit(table.astype({"digit": "category"}))
    first = ConditionalVAE(2, condition_features=[0], categorical_features=[0], **QUICK).fit(
        np.roll(labelled, 1, axis=1)
    )
    Z = by_index.transform(labelled)
    np.testing.assert_array_equal(by_name.transform(table), Z)
    np.testing.assert_array_equal(by_type.transform(table.astype({"digit": "category"})), Z)
    np.testing.assert_array_equal(first.transform(np.roll(labelled, 1, axis=1)), Z)


def test_conditions_in_a_search_and_with_probabilities(labelled):
    X = np.column_stack([labelled[:, :64] > 0.5, labelled[:, 64]])
    model = ConditionalVAE(likelihood="bernoulli", **DIGIT, **QUICK)
    search = GridSearchCV(model, {"n_components": [1, 4]}, cv=2).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    drawn = search.best_estimator_.sample(5, condition=[8])
    assert set(np.unique(drawn[:, :64])) <= {0, 1}


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (None, "needs one: pass condition="),
        ([[1], [2]], r"condition must have shape \(1,\) or .*\(3, 1\), got \(2, 1\)"),
        ([1, 2], "condition must have shape"),
        ([11], "condition has the category 11 of column 64, which fit did not see"),
    ],
)
def test_bad_conditions(labelled, condition, message):
    model = ConditionalVAE(2, **DIGIT, **QUICK).fit(labelled)
    with pytest.raises(ValueError, match=message):
        model.inverse_transform(np.zeros((3, 2)), condition=condition)
    with pytest.raises(ValueError, match=message):
        model.sample(3, condition=condition)


def test_bad_columns_leave_no_half_fitted_estimator(labelled, frame):
    probabilities = dict(likelihood="bernoulli", condition_features=["height"])
    for model, X, message in (
        (ConditionalVAE(condition_features=range(65)), labelled, "are all columns of X"),
        (ConditionalVAE(condition_features=[70]), labelled, "."),
        (ConditionalVAE(condition_features=["height", "length"]), frame, "length"),
        (ConditionalVAE(**probabilities), frame, "a decoder that gives probabilities of numbers in"),
        (ConditionalVAE(condition_features=["sex"]), frame.assign(sex=None), "X has columns without an observed value"),
        (ConditionalVAE(condition_features=["age", "age"]), frame.drop(columns="sex"), "name a column twice"),
        (ConditionalVAE(condition_features=["sex"]), frame.assign(age=np.inf), "contains infinity"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(X)
        assert not [name for name in vars(model) if name.endswith("_")]
    with pytest.raises(ValueError, match="fitted without condition_features"):
        ConditionalVAE(**QUICK).fit(labelled).sample(2, condition=[3])


@pytest.mark.parametrize(
    "dates",
    [pd.Series(pd.date_range("2024-01-01", periods=200)), pd.Series(pd.date_range("2024-01-01", periods=200)).dt.date],
    ids=["datetime64", "date"],
)
def test_dates_are_no_condition(table, dates):
    frame = pd.DataFrame(table, columns=list("abcdef")).assign(day=dates)
    with pytest.raises(ValueError, match=r"Column 'day' (has the dtype datetime64|holds dates such as 2024-01-01)"):
        ConditionalVAE(condition_features=["day"], **QUICK).fit(frame)


# VQVAE.


def reconstruction_error(model, X):
    return np.square(X - model.inverse_transform(model.transform(X))).sum()


def test_at_an_identity_encoder_it_is_k_means(digits):
    model = VQVAE(64, n_codes=20, hidden_layer_sizes=(), **INITIAL).fit(digits)
    inertia = np.median([KMeans(20, n_init=3, random_state=seed).fit(digits).inertia_ for seed in range(5)])
    assert reconstruction_error(model, digits) == pytest.approx(inertia, rel=0.01)
    centres = model.codebooks_[0]
    nearest = np.square(model.transform(digits)[:, None] - centres).sum(axis=-1).argmin(axis=1)
    np.testing.assert_array_equal(nearest, model.predict(digits))


def test_moving_averages_find_k_means_by_themselves(digits):
    # the codes are initialized at rows, and nothing but their averages moves
    model = VQVAE(64, n_codes=20, hidden_layer_sizes=(), **INITIAL).fit(digits)
    module = model.module_.float()
    x = torch.tensor((digits - model.mean_) / model.scale_, dtype=torch.float32)
    torch.manual_seed(0)
    with torch.no_grad():
        z = module.encoder(x)
        module.codebooks.copy_(z[torch.randperm(len(z))[:20]])
        module.reset_averages()
        for _ in range(60):
            for batch in z[torch.randperm(len(z))].split(100):
                module.move_codes(batch, module.quantize(batch)[1])
        quantized = module.quantize(z)[0]
        found = float((z - quantized).square().sum()) * model.scale_**2
    assert found < 1.05 * KMeans(20, n_init=10, random_state=0).fit(digits).inertia_


def test_codes_are_used_and_dead_ones_revived(digits):
    model = VQVAE(16, n_codes=64, max_iter=30, random_state=0).fit(digits)
    assert (model.code_frequencies_ > 0).mean() >= 0.8
    assert model.code_frequencies_.sum() == pytest.approx(1)
    module = model.module_.float()
    with torch.no_grad():
        module.codebooks[:, 1:] = 1e3
        module.reset_averages()
        z = module.encoder(torch.tensor((digits - model.mean_) / model.scale_, dtype=torch.float32))
        for _ in range(40):
            for batch in z.split(300):
                module.move_codes(batch, module.quantize(batch)[1])
        used = module.quantize(z)[1].unique()
    assert len(used) >= 0.8 * 64


def test_several_codebooks_beat_one_of_the_same_bits_from_principal_components(digits):
    train, test = train_test_split(digits, random_state=0)
    options = dict(n_codes=16, n_codebooks=3, random_state=0)
    initial = VQVAE(15, max_iter=1, learning_rate_init=1e-12, **options).fit(
        train
    )  # k-means in each group of components
    model = VQVAE(15, max_iter=40, **options).fit(train)
    assert 1 - model.score(test) < 0.9 * (1 - initial.score(test))
    labels = model.predict(test)
    assert labels.shape == (len(test),)
    assert 0 <= labels.min() <= labels.max() < 16**3
    indices = np.column_stack(np.unravel_index(labels, (16, 16, 16)))
    by_hand = np.empty((len(test), 15))
    for book in range(3):
        by_hand[:, book::3] = model.codebooks_[book][indices[:, book]]
    np.testing.assert_allclose(by_hand, model.transform(test), atol=1e-9)


def test_drawn_rows_are_decoded_codes_as_frequent_as_in_the_data(digits):
    model = VQVAE(8, n_codes=6, max_iter=10, random_state=0).fit(digits)
    drawn, exact = model.sample(5000, random_state=0), model.inverse_transform(model.codebooks_[0])
    distances = np.abs(drawn[:, None] - exact).max(axis=-1)
    assert distances.min(axis=1).max() < 1e-9
    counts = np.bincount(distances.argmin(axis=1), minlength=6)
    np.testing.assert_allclose(counts / 5000, model.code_frequencies_[0], atol=0.03)
    two = VQVAE(8, n_codes=6, n_codebooks=2, **QUICK).fit(digits)
    both = np.column_stack(np.unravel_index(two.predict(digits), (6, 6)))
    expected = np.zeros((6, 6))
    np.add.at(expected, tuple(both.T), 1)
    np.testing.assert_array_equal(two.code_followers_[0].toarray(), expected)
    np.testing.assert_array_equal(two.sample(9, random_state=1), two.sample(9, random_state=1))


def test_components_are_dealt_out_evenly(table):
    with pytest.raises(ValueError, match="n_components=5 must be a multiple of n_codebooks=2"):
        VQVAE(5, n_codebooks=2).fit(table)
    with pytest.raises(ValueError, match=r"n_components=0.9 must be a multiple of n_codebooks=2"):
        VQVAE(0.9, n_codebooks=2).fit(table)
    many = VQVAE(11, n_codes=64, n_codebooks=11, **QUICK).fit(table)
    with pytest.raises(ValueError, match="combinations of codes are more than int64 can number"):
        many.predict(table)
    with pytest.raises(AttributeError, match="combinations of codes are more than int64 can number"):
        many.fit_predict(table)


def test_codes_are_clusters(table):
    model = VQVAE(2, n_codes=3, **QUICK)
    assert is_clusterer(model)
    labels = model.fit_predict(table)
    assert set(labels) <= {0, 1, 2}
    np.testing.assert_array_equal(labels, model.labels_)
    np.testing.assert_array_equal(labels, model.predict(table))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).labels_, labels)
    X, y = make_blobs(300, random_state=0, cluster_std=0.5)
    assert adjusted_rand_score(VQVAE(2, n_codes=3, random_state=0).fit_predict(X), y) > 0.9


@pytest.mark.parametrize(("n_rows", "n_codes"), [(3, 1), (70, 10), (1000, 64)])
def test_codes_are_as_many_as_there_are_rows_for(digits, n_rows, n_codes):
    model = VQVAE(2, **QUICK).fit(digits[:n_rows])
    assert model.n_codes_ == n_codes
    assert model.codebooks_.shape == (1, n_codes, 2)
    assert VQVAE(2, n_codes=7, **QUICK).fit(digits[:n_rows]).n_codes_ == 7


def test_weights_of_rows_are_those_of_their_codes(digits):
    weights = np.random.RandomState(0).uniform(size=len(digits))
    model = VQVAE(8, n_codes=6, n_codebooks=2, **QUICK).fit(digits, sample_weight=weights)
    first, second = np.unravel_index(model.labels_, (6, 6))
    np.testing.assert_allclose(model.code_frequencies_[0], np.bincount(first, weights, 6) / weights.sum())
    expected = np.zeros((6, 6))
    np.add.at(expected, (first, second), weights)
    np.testing.assert_allclose(model.code_followers_[0].toarray(), expected)
    model.partial_fit(digits[:100])
    assert model.code_followers_[0].sum() == pytest.approx(weights.sum() + 100)


def test_pairs_of_codes_take_the_room_of_those_that_occur(digits):
    model = VQVAE(8, n_codes=1024, n_codebooks=4, max_iter=1, init="random", random_state=0).fit(digits[:300])
    n_weights = sum(value.numel() for value in model.module_.state_dict().values())
    assert len(pickle.dumps(model)) < 4 * n_weights + 200_000  # 25 MB if all pairs were written


def test_single_rows_do_not_ruin_the_codebook(digits):
    model = VQVAE(16, max_iter=20, random_state=0).fit(digits)
    before = model.score(digits)
    for row in range(200):
        model.partial_fit(digits[row : row + 1])
    assert before - model.score(digits) < 0.2
    assert (model.code_frequencies_ > 0).mean() >= 0.8
    assert model.code_frequencies_.sum() == pytest.approx(1)


def test_codes_of_a_row_do_not_depend_on_the_rows_beside_it(digits):
    model = VQVAE(4, n_codes=64, **QUICK).fit(digits[:30])  # more codes than rows: some are alike
    alone = [int(model.predict(row[None])[0]) for row in digits[:60]]
    np.testing.assert_array_equal(model.predict(digits[:60]), alone)


# Priors of VAE, free bits, active units.


def test_a_flow_that_is_the_identity_is_the_normal_prior(digits):
    normal, flow = (VAE(5, prior=prior, **INITIAL).fit(digits) for prior in ("normal", "flow"))
    np.testing.assert_allclose(flow.score_samples(digits[:50]), normal.score_samples(digits[:50]), atol=1e-5)
    np.testing.assert_allclose(flow.sample(5, random_state=0), normal.sample(5, random_state=0), atol=1e-5)
    for found, expected in zip(flow.elbo(digits[:9]), normal.elbo(digits[:9]), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def moons(seed):
    X, _ = make_moons(2000, noise=0.05, random_state=seed)
    return train_test_split(X, random_state=seed)


@pytest.fixture(scope="module")
def with_priors():
    train, _ = moons(0)
    return {p: VAE(2, prior=p, max_iter=20, random_state=0).fit(train) for p in ("normal", "vamp", "flow")}


def test_flow_is_a_density_and_is_drawn_from(with_priors):
    model = with_priors["flow"]
    grid = np.linspace(-7, 7, 281)
    z = torch.tensor(np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2))
    with torch.no_grad():
        density = model.module_.prior.log_density(model.module_, z).exp().numpy()
    area = (grid[1] - grid[0]) ** 2
    assert density.sum() * area == pytest.approx(1, abs=0.01)
    drawn = model._draw_codes(20_000, np.random.RandomState(0))
    mean = (z.numpy() * density[:, None]).sum(axis=0) * area
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.05)
    second = (z.numpy() ** 2 * density[:, None]).sum(axis=0) * area
    np.testing.assert_allclose((drawn**2).mean(axis=0), second, rtol=0.05)


def test_vamp_prior_is_the_mixture_of_its_pseudo_inputs(with_priors):
    model = with_priors["vamp"]
    prior = model.module_.prior
    mean, log_var = model.module_.posterior(prior.rows + prior.shift)
    oracle = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(len(mean))),
        torch.distributions.Independent(torch.distributions.Normal(mean, (log_var / 2).exp()), 1),
    )
    z = torch.randn(20, 2, dtype=torch.float64)
    torch.testing.assert_close(prior.log_density(model.module_, z), oracle.log_prob(z))
    drawn = model._draw_codes(20_000, np.random.RandomState(0))
    np.testing.assert_allclose(drawn.mean(axis=0), oracle.mean.detach(), atol=0.03)
    np.testing.assert_allclose(drawn.var(axis=0), oracle.variance.detach(), rtol=0.05)


@pytest.mark.parametrize("prior", ["vamp", "flow"])
def test_learned_prior_is_a_better_model_of_moons(with_priors, prior):
    model, (_, test) = with_priors[prior], moons(0)
    assert model.score(test) > with_priors["normal"].score(test) + 0.1
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.score_samples(test), model.score_samples(test))
    bound, reconstruction, divergence = model.elbo(test)
    np.testing.assert_allclose(bound, reconstruction - divergence, atol=1e-12)
    assert bound.mean() < model.score(test)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("prior", ["vamp", "flow"])
def test_learned_priors_raise_the_held_out_likelihood(digits, prior, seed):
    for train, test, k in (
        (*train_test_split(make_moons(2000, noise=0.05, random_state=0)[0], random_state=seed), 2),
        (*train_test_split(digits, random_state=seed), 10),
    ):
        normal, learned = (VAE(k, prior=p, random_state=seed).fit(train).score(test) for p in ("normal", prior))
        assert learned > normal


def test_one_component_has_a_flow_too(table):
    assert np.isfinite(VAE(1, prior="flow", **QUICK).fit(table).score(table))


def test_flow_without_zuko(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko.flows", None)
    model = VAE(prior="flow")
    with pytest.raises(ImportError, match=r"pip install zuko"):
        model.fit(table)
    assert not hasattr(model, "module_")


def test_free_bits_keep_components_in_use(digits):
    plain = VAE(8, beta=20, max_iter=20, init="random", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of the collapse, if it is complete
        plain.fit(digits)
    free = VAE(8, beta=20, free_bits=0.5, max_iter=20, init="random", random_state=0).fit(digits)
    assert free.active_units_.sum() > plain.active_units_.sum()
    assert free.elbo(digits)[2].mean() > 0.45 * 8
    with pytest.raises(InvalidParameterError, match="free_bits needs the divergence of single components"):
        VAE(free_bits=0.1, prior="vamp").fit(digits)


@pytest.mark.parametrize(("noise_variance", "n_active"), [(0.05, 18), (0.2, 7)])
def test_active_units_are_those_above_the_noise(digits, noise_variance, n_active):
    model = VAE(32, noise_variance=noise_variance, hidden_layer_sizes=(), max_iter=5, random_state=0).fit(digits)
    variances = model.transform(digits).var(axis=0)
    np.testing.assert_array_equal(model.active_units_, variances > 0.01)
    assert n_active - 1 <= model.active_units_.sum() <= n_active  # one may be active by less than 0.01


def test_a_fit_that_fails_at_its_end_leaves_the_estimator_as_it_was(digits):
    model = VAE(4, **QUICK).fit(digits)
    expected = model.transform(digits)
    model.set_params(hidden_layer_sizes=(8,), beta=1e6, init="random", max_iter=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        with pytest.raises(ConvergenceWarning):
            model.fit(digits)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).transform(digits), expected)


def test_active_units_are_of_rows_enough(digits):
    model = VAE(2, **QUICK).fit(digits)
    assert model.partial_fit(digits[:1]).active_units_.all()


# AdversarialAutoEncoder.


class LastEpoch(AutoEncoder):
    """AutoEncoder with the optimizer of AdversarialAutoEncoder and, as that, at its last epoch."""

    def _optimizers(self, module):
        idle = torch.nn.Linear(1, 1)
        nothing = adam(idle, 0.0), lambda module, x: 0 * idle(x[:, :1])[:, 0]
        return [(self._loss, adam(module, self.alpha, (0.5, 0.9))), nothing[::-1]]


def test_without_weight_the_adversary_changes_nothing(digits):
    options = dict(init="random", max_iter=5, random_state=0)
    adversarial = AdversarialAutoEncoder(3, adversary_weight=0, **options).fit(digits)
    plain = LastEpoch(3, early_stopping=False, **options).fit(digits)
    assert same_reconstructions(adversarial, plain, digits)


def mmd(first, second):
    """Unbiased squared maximum mean discrepancy with a Gaussian kernel (Gretton et al. 2012, eq. 3)."""
    gamma, n, m = 1 / (2 * first.shape[1]), len(first), len(second)
    within = [
        (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (rbf_kernel(A, gamma=gamma) for A in (first, second))
    ]
    return sum(within) - 2 * rbf_kernel(first, second, gamma=gamma).sum() / (n * m)


def match(model, X, n_draws=20):
    """Discrepancy of the codes of X from the prior, and the largest of pairs of samples of the prior."""
    rng = np.random.RandomState(0)
    Z = model.transform(X)
    found = np.mean([mmd(Z, rng.standard_normal(Z.shape)) for _ in range(5)])
    return found, max(mmd(rng.standard_normal(Z.shape), rng.standard_normal(Z.shape)) for _ in range(n_draws))


def test_codes_of_held_out_rows_match_the_prior(labelled):
    train, test = train_test_split(labelled, random_state=0)
    model = AdversarialAutoEncoder(8, max_iter=60, random_state=0).fit(train[:, :64])
    found, by_chance = match(model, test[:, :64])
    assert found < by_chance
    plain = AutoEncoder(8, max_iter=60, random_state=0).fit(train[:, :64])
    plain.transform = lambda X, codes=plain.transform: codes(X) / codes(X).std(axis=0)
    assert match(plain, test[:, :64])[0] > 2 * found
    assert model.score(test[:, :64]) > 0.75
    judge = SVC(C=10, decision_function_shape="ovr").fit(labelled[:, :64], labelled[:, 64])
    drawn = model.sample(300, random_state=0)
    nearest = np.sqrt(np.square(drawn[:, None] - labelled[None, :, :64]).sum(axis=-1)).min(axis=1)
    assert np.median(nearest) < 1.6  # as far as held-out digits are from others
    assert len(np.unique(judge.predict(drawn))) == 10


@pytest.mark.slow
@pytest.mark.parametrize("n_components", [2, 8])
def test_adversarial_training_is_stable_over_ten_seeds(digits, n_components):
    train, test = train_test_split(digits, random_state=0)
    scores, misses = [], 0
    for seed in range(10):
        model = AdversarialAutoEncoder(n_components, random_state=seed).fit(train)
        found, by_chance = match(model, test)
        misses += found > by_chance
        scores.append(model.score(test))
    assert misses == 0
    assert np.ptp(scores) < 0.06
