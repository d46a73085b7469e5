"""Searches of scikit-learn in which the networks of all candidates and folds train together."""

from typing import Self

from joblib import parallel_config
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.model_selection._search_successive_halving import HalvingGridSearchCV, HalvingRandomSearchCV

from ._together import Together

__all__ = [
    "BatchedGridSearchCV",
    "BatchedHalvingGridSearchCV",
    "BatchedHalvingRandomSearchCV",
    "BatchedRandomizedSearchCV",
]


class TrainsTogether:
    """Runs the fits of a search of scikit-learn beside one another, so that their networks train together."""

    def fit(self, X, y=None, **params) -> Self:
        """Run fit with all sets of parameters.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Target of the estimator or of the scorer, if they need one.
        **params : dict of str -> object
            Passed to the ``fit`` method of the estimator, to the scorer and to the splitter, as scikit-learn's search
            does.

        Returns
        -------
        self : object
            Fitted search.
        """
        with parallel_config(backend=Together()):
            return super().fit(X, y, **params)


class BatchedGridSearchCV(TrainsTogether, GridSearchCV):
    """GridSearchCV in which the networks of all candidates and folds train together.

    The search is scikit-learn's: its parameters, results and manners are those of GridSearchCV, for skae's estimators
    alone, in a pipeline or anywhere in the estimator that is searched. What differs is the time that it takes. All fits
    go on beside one another, and an epoch of networks of one shape is a single training of stacked networks. On a
    processor the scores are those of GridSearchCV, but for rounding in layers of odd widths.

    Parameters
    ----------
    estimator : estimator object
        What is searched: an estimator of skae, or one that has some within.

    param_grid : dict or list of dict
        Names of parameters, and the values to try of each.

    n_jobs : int, default=None
        Number of processes, as in GridSearchCV. Each trains its share of the fits together.

    pre_dispatch : int or str, default="2*n_jobs"
        How many fits go on at once, each with its own copy of its rows. By default 256; an int makes it so many, for
        data that is large.

    **params : dict
        The others of GridSearchCV, as they are there: ``scoring``, ``refit``, ``cv``, ``verbose``, ``error_score`` and
        ``return_train_score``.

    Attributes
    ----------
    cv_results_ : dict of ndarray
        As in GridSearchCV; ``fit_time`` of a fit is its share of the training.

    best_estimator_ : estimator
        Refitted alone. This and all other attributes are as in GridSearchCV.

    See Also
    --------
    sklearn.model_selection.GridSearchCV : The same search, one fit after another.
    BatchedRandomizedSearchCV : The same for RandomizedSearchCV.
    BatchedHalvingGridSearchCV : The same for HalvingGridSearchCV.
    BatchedHalvingRandomSearchCV : The same for HalvingRandomSearchCV.

    Notes
    -----
    Networks train together if their estimators differ in no more than `alpha`, `learning_rate_init`, `max_iter`,
    `n_iter_no_change`, `random_state` and `tol`, and if they have the same layers, as many training rows and batches of
    the same size. Other parameters, such as `n_components`, divide the grid in parts. Each part with four networks or
    more trains together; a candidate has one for each fold and initialization.

    It pays most for small batches, where a step costs more than its matrix products: it takes a third of the time for
    batches of 32 rows, and half of it for batches of 100. It does not pay for fewer than eight networks of one kind,
    nor for wide networks, which keep the processor busy alone. AdversarialAutoEncoder, sparse X, tables with missing
    cells and accelerators without a fused optimizer train one network after another, as without this class. So does a
    member of one's own whose loss reads or changes other attributes of the estimator than the parameters that its
    networks share. What it keeps elsewhere, such as a counter of its module, is not noticed: a loss must be a function
    of the parameters, the network and the rows of a batch, with draws from torch's generator.

    With an int as `random_state` each network draws what it would draw alone. With None, noise in the loss differs from
    that of a fit alone.

    Fits run in threads, one at a time. An interrupt waits for the fit that is running to come to its next epoch. Times
    printed with `verbose` include the waiting for other fits; those in `cv_results_` do not.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skae import AutoEncoder, BatchedGridSearchCV
    >>> pipeline = make_pipeline(StandardScaler(), AutoEncoder(1, max_iter=2, random_state=0))
    >>> search = BatchedGridSearchCV(pipeline, {"autoencoder__alpha": [0.1, 1.0]}, cv=2).fit(load_iris().data)
    >>> search.cv_results_["mean_test_score"].shape
    (2,)
    """


class BatchedRandomizedSearchCV(TrainsTogether, RandomizedSearchCV):
    """RandomizedSearchCV in which the networks of all candidates and folds train together.

    Parameters and attributes are those of RandomizedSearchCV; `n_jobs`, `pre_dispatch` and what trains together are as
    in BatchedGridSearchCV.

    See Also
    --------
    sklearn.model_selection.RandomizedSearchCV : The same search, one fit after another.
    BatchedGridSearchCV : The same for GridSearchCV.

    Notes
    -----
    Draw the parameters that define the network, such as `n_components`, from a few values: of many, few networks would
    be of one shape.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> from sklearn.datasets import load_iris
    >>> from skae import AutoEncoder, BatchedRandomizedSearchCV
    >>> options = {"alpha": loguniform(0.01, 1), "learning_rate_init": loguniform(0.001, 0.01)}
    >>> autoencoder = AutoEncoder(1, max_iter=2, random_state=0)
    >>> search = BatchedRandomizedSearchCV(autoencoder, options, n_iter=3, cv=2, random_state=0).fit(load_iris().data)
    >>> len(search.cv_results_["params"])
    3
    """


class BatchedHalvingGridSearchCV(TrainsTogether, HalvingGridSearchCV):
    """HalvingGridSearchCV in which the networks of all candidates and folds of an iteration train together.

    Parameters and attributes are those of HalvingGridSearchCV; `n_jobs` and what trains together are as in
    BatchedGridSearchCV.

    See Also
    --------
    sklearn.model_selection.HalvingGridSearchCV : The same search, one fit after another.
    BatchedGridSearchCV : The same for GridSearchCV.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoder, BatchedHalvingGridSearchCV
    >>> autoencoder = AutoEncoder(2, max_iter=2, random_state=0)
    >>> search = BatchedHalvingGridSearchCV(autoencoder, {"alpha": [0.1, 0.3, 1.0]}, cv=2, random_state=0)
    >>> search.fit(load_digits().data).n_resources_
    [599, 1797]
    """


class BatchedHalvingRandomSearchCV(TrainsTogether, HalvingRandomSearchCV):
    """HalvingRandomSearchCV in which the networks of all candidates and folds of an iteration train together.

    Parameters and attributes are those of HalvingRandomSearchCV; `n_jobs` and what trains together are as in
    BatchedGridSearchCV.

    See Also
    --------
    sklearn.model_selection.HalvingRandomSearchCV : The same search, one fit after another.
    BatchedGridSearchCV : The same for GridSearchCV.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoder, BatchedHalvingRandomSearchCV
    >>> autoencoder = AutoEncoder(2, max_iter=2, random_state=0)
    >>> options = {"alpha": loguniform(0.1, 1)}
    >>> search = BatchedHalvingRandomSearchCV(autoencoder, options, min_resources=500, cv=2, random_state=0)
    >>> search.fit(load_digits().data).n_candidates_
    [3, 1]
    """
