"""The choice of epoch and initialization by folds or validation rows, and the network that is trained on all rows."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    LeaveOneGroupOut,
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
)
from sklearn.utils._param_validation import InvalidParameterError

import skae

QUICK = dict(max_iter=6, random_state=0)


class Watched(skae.AutoEncoder):
    """Notes which rows train, by their first column: a set for each network and epoch."""

    def fit(self, X, *arguments, **options):
        Watched.networks, Watched.seen = {}, []
        return super().fit(X, *arguments, **options)

    def _loss(self, module, x):
        if module.training:
            if id(module) not in Watched.networks:
                Watched.networks[id(module)] = module  # kept, so that no other gets its id
                Watched.seen.append((module, set()))
            rows = next(rows for network, rows in Watched.seen if network is module)
            rows.update(x[:, 0].tolist())
        return super()._loss(module, x)


@pytest.fixture
def X():
    # a parabola in five dimensions: PCA with one component is clearly beaten
    rng = np.random.RandomState(0)
    t = rng.uniform(-2, 2, 150)
    return np.column_stack([t, t**2, -t, t**2 + t, t**2 - t]) + 0.02 * rng.standard_normal((150, 5))


def trained(model):
    """Numbers of rows that trained each network, in the order of training."""
    return [len(rows) for _, rows in model.seen]


def test_folds_choose_and_every_row_trains(X):
    model = Watched(1, cv=3, **QUICK).fit(X)
    assert model.best_iter_ > 0
    assert trained(model) == [100] * 6 + [150]  # two initializations, three folds; then the one that is kept
    assert len(model.validation_curve_) == model.n_iter_ + 1
    assert model.best_loss_ == model.validation_curve_[model.best_iter_] == min(model.validation_curve_)


def test_one_validation_set_chooses_where_rows_are_many(X):
    X = np.tile(X, (4, 1)) + 1e-3 * np.random.RandomState(1).standard_normal((600, 5))
    model = Watched(1, **QUICK).fit(X)
    assert trained(model) == [540, 540, 600]


def test_a_validation_fraction_never_trains(X):
    model = Watched(1, validation_fraction=0.2, **QUICK).fit(X)
    assert trained(model) == [120, 120]
    np.testing.assert_array_equal(
        model.transform(X), skae.AutoEncoder(1, validation_fraction=0.2, **QUICK).fit(X).transform(X)
    )


def test_without_early_stopping_all_rows_train_once(X):
    model = Watched(1, early_stopping=False, cv=3, **QUICK).fit(X)
    assert trained(model) == [150, 150]
    assert model.validation_curve_ is None


def test_validation_rows_of_ones_own_choose_instead_of_folds(X):
    model = Watched(1, cv=3, **QUICK).fit(X[:100], X_val=X[100:])
    assert trained(model) == [100, 100]


@pytest.mark.parametrize(
    ("cv", "sizes"),
    [
        (ShuffleSplit(2, test_size=0.2, random_state=0), [120] * 4),
        (TimeSeriesSplit(3), [39, 76, 113] * 2),
        (StratifiedKFold(2), [75] * 4),
        (LeaveOneGroupOut(), [100] * 6),
        ([(range(100), range(100, 150)), (range(50, 150), range(50))], [100] * 4),
        (np.stack([np.r_[:150], np.r_[75:150, :75]]).reshape(2, 2, 75), [75] * 4),
        (None, [120] * 10),
    ],
)
def test_splitters(cv, sizes, X):
    y, groups = np.repeat([0, 1], 75), np.tile([0, 1, 2], 50)
    model = Watched(1, cv=cv, **QUICK).fit(X, y, groups=groups if isinstance(cv, LeaveOneGroupOut) else None)
    assert model.best_iter_ > 0
    *of_folds, refit = trained(model)  # folds of the same size train together
    assert sorted(of_folds) == sorted(sizes)
    assert refit == 150


def test_a_splitter_is_given_what_fit_is(X):
    given = []

    class Splitter:
        def get_n_splits(self, *_):
            return 1

        def split(self, *arguments):
            given.extend(arguments)
            yield np.arange(100), np.arange(100, 150)

    y, groups = np.arange(150), list("abc" * 50)
    weights = np.r_[np.zeros(20), np.ones(130)]
    model = Watched(1, cv=Splitter(), **QUICK).fit(X, y, sample_weight=weights, groups=groups)
    assert given[0] is X
    assert given[1] is y
    assert list(given[2]) == groups
    assert trained(model) == [80, 80, 130]  # rows without weight neither train nor validate


def test_groups_stay_in_one_fold(X):
    groups = np.repeat(np.arange(15), 10)
    for seed in range(3):
        model = Watched(1, cv=5, **(QUICK | {"random_state": seed})).fit(X, groups=groups)
        first = (X[:, 0] - model.mean_[0]) / model.scale_
        for _, rows in model.seen[:-1]:
            inside = np.abs(first[:, None] - np.array(list(rows))).min(axis=1) < 1e-6
            assert {int(n) for n in np.bincount(groups, inside)} == {0, 10}
    with pytest.raises(ValueError, match="Cannot have number of splits n_splits=3 greater than the number of groups"):
        Watched(1, cv=3, **QUICK).fit(X, groups=np.repeat([0, 1], 75))


@pytest.mark.parametrize("cv", ["3", 1.5, "folds", 1])
def test_cv_of_another_kind_is_an_error(cv, X):
    with pytest.raises(InvalidParameterError, match="The 'cv' parameter of AutoEncoder"):
        skae.AutoEncoder(cv=cv).fit(X)


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        (151, "cv=151 is more than the 150 rows of X that differ and have weight"),
        ([([0], [150])], "cv must give pairs of training and test indices of the 150 rows of X: index 150 is out of"),
        (iter([([0], [1])]), "Pass list"),
        ([], "gives no folds"),
        ([(range(150), [])], "without training or validation rows"),
        ([([], range(150))], "without training or validation rows"),
        (StratifiedKFold(2), "Supported target types are"),
    ],
)
def test_folds_that_cannot_be_used(cv, message, X):
    model = skae.AutoEncoder(1, cv=cv, **QUICK)
    with pytest.raises(ValueError, match=message):
        model.fit(X, X[:, 0])
    assert not hasattr(model, "module_")


def test_warm_start_keeps_its_validation_rows(X):
    model = Watched(1, warm_start=True, **QUICK).fit(X)
    assert trained(model) == [100, 100]
    assert trained(model.fit(X)) == [100]
    with pytest.raises(ValueError, match="cv cannot be used with warm_start=True"):
        model.set_params(cv=3).fit(X)


def test_cv_is_a_parameter_like_others(X):
    model = skae.AutoEncoder(1, cv=ShuffleSplit(1, random_state=0), **QUICK)
    assert clone(model).fit(X).score(X) == clone(model).fit(X).score(X)
    search = GridSearchCV(skae.AutoEncoder(1, **QUICK), {"cv": ["auto", 3]}, cv=2).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_a_row_that_validates_twice_counts_once(X):
    noise = np.random.RandomState(5).standard_normal((40, 5))
    splits = list(KFold(5).split(noise))
    once, often = (skae.AutoEncoder(2, cv=cv, max_iter=20, random_state=0).fit(noise) for cv in (splits, splits * 3))
    assert once.best_iter_ == often.best_iter_
    np.testing.assert_allclose(once.validation_curve_, often.validation_curve_)


class NotFiniteOnAllRows(skae.AutoEncoder):
    """Its loss is not finite once all rows train, in the third epoch."""

    def fit(self, X):
        self.seen, self.n_rows = {}, len(X)
        return super().fit(X)

    def _loss(self, module, x):
        loss = super()._loss(module, x)
        if not module.training:
            return loss
        self.seen[id(module)] = [*self.seen.get(id(module), []), len(x)]
        return loss * np.nan if sum(self.seen[id(module)]) > 2 * self.n_rows and len(self.seen) == 2 else loss


def test_a_refit_that_diverges_says_so(X):
    model = NotFiniteOnAllRows(1, init="random", cv=[(range(100), range(100, 150))], **QUICK)
    with pytest.warns(ConvergenceWarning, match="not finite in epoch 3; the weights of epoch 2 are kept"):
        model.fit(X)
    assert model.best_iter_ == 2
    assert model.best_loss_ == model.validation_curve_[2]
    assert np.isfinite(model.transform(X)).all()


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in skae.__all__
        if issubclass(getattr(skae, name), skae.BaseAutoEncoder)
        and name not in ("BaseAutoEncoder", "AdversarialAutoEncoder", "NeighborAutoEncoder")
    ],
)
def test_every_member_chooses_by_folds(name, X):
    member = getattr(skae, name)
    options = {"condition_features": [0]} if name == "ConditionalVAE" else {}
    first, second = (member(1, cv=2, **options, **QUICK).fit(X) for _ in range(2))
    np.testing.assert_array_equal(first.transform(X), second.transform(X))
    assert len(first.validation_curve_) == first.n_iter_ + 1


def test_few_rows_without_structure_stay_with_pca():
    kept = []
    for seed in range(5):
        X = np.random.RandomState(seed).standard_normal((60, 8)) * np.geomspace(3, 0.5, 8)
        model = skae.AutoEncoder(2, random_state=seed).fit(X)
        kept.append(model.best_iter_ == 0)
        if kept[-1]:
            pca = PCA(2).fit(X)
            np.testing.assert_allclose(
                model.inverse_transform(model.transform(X)), pca.inverse_transform(pca.transform(X)), atol=1e-5
            )
    assert sum(kept) >= 4
