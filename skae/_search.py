"""Searches of scikit-learn whose networks train together."""

from joblib import parallel_config
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.model_selection._search_successive_halving import HalvingGridSearchCV, HalvingRandomSearchCV

from ._together import Together


class TrainsTogether:
    """Gives a search of scikit-learn a backend in which the networks of all its fits are trained together."""

    def fit(self, X, y=None, **params):
        with parallel_config(backend=Together()):
            return super().fit(X, y, **params)


class BatchedGridSearchCV(TrainsTogether, GridSearchCV):
    pass


class BatchedRandomizedSearchCV(TrainsTogether, RandomizedSearchCV):
    pass


class BatchedHalvingGridSearchCV(TrainsTogether, HalvingGridSearchCV):
    pass


class BatchedHalvingRandomSearchCV(TrainsTogether, HalvingRandomSearchCV):
    pass
