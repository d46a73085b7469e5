"""AutoEncoderImputer: an imputer in scikit-learn's sense, on any member of the family."""

from typing import Any, Self

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted, validate_data

from ._axes import observed_axes, observed_posterior
from ._base import BaseAutoEncoder
from ._columns import categorical_columns, is_missing_table, library, stacked_columns
from ._imputation import reconstructed
from ._layers import factor_model
from ._parameters import validated
from ._tables import scaler_for
from ._variational import VAE

# Numbers of components that are tried, on so many rows; one needs this many rows.
SIZES, MOST_ROWS, ROWS_OF_A_COMPONENT = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16), 1500, 50
# The fewest are taken whose error is no larger than the least by more than this.
TOLERANCE = 1.01
# Components of the VAE beyond those of the best probabilistic PCA.
MORE_COMPONENTS = 2


class AutoEncoderImputer(TransformerMixin, BaseEstimator):
    """Imputation of missing cells by an autoencoder, also of categories.

    By default a `VAE`, whose posterior given the observed cells and whose likelihood for each column give the expected
    number and the most probable category [1]_, [2]_. It starts at probabilistic PCA by EM, and is left there unless it
    is clearly better. Numbers are standardized first, so that their units do not matter.

    Parameters
    ----------
    estimator : estimator of skae or None, default=None
        Member that is fitted to X. None is ``VAE(k + 2)``, where k is the number of components with which probabilistic
        PCA predicts cells best that are held out. One without the method `impute` fills cells with its reconstruction,
        several times over.

    sample_posterior : bool, default=False
        Whether to draw from the distribution of what is missing given what is observed, rather than to take the best
        guess. It needs an estimator with the method `impute`. Each call of `transform` draws the same for the same row
        and an int as `random_state`: for several imputations use several of these, or `VAE.impute`.

    add_indicator : bool, default=False
        Whether to add a column of zeros and ones for each column that had missing cells in `fit`, one where the cell
        was missing, as `MissingIndicator` gives them.

    keep_empty_features : bool, default=False
        Whether columns without an observed value in `fit` are kept, filled with zeros. Otherwise they are left out.

    random_state : int, RandomState instance or None, default=None
        Determines the fit of the default estimator, and draws.

    Attributes
    ----------
    estimator_ : estimator of skae
        The fitted member.

    n_features_in_ : int
        Number of columns of X in `fit`.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of X in `fit`, if they are all strings.

    See Also
    --------
    VAE.impute : The same for a fitted VAE, and several draws.
    sklearn.impute.IterativeImputer : Regressions of each column on the others; of numbers only.

    References
    ----------
    .. [1] Mattei and Frellsen (2019), "MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets", ICML,
       eq. 4 to 6 and 11.
    .. [2] Tipping and Bishop (1999), "Probabilistic Principal Component Analysis", appendix C.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from skae import VAE, AutoEncoderImputer
    >>> X = load_iris().data
    >>> X[::7, 2] = np.nan
    >>> imputer = AutoEncoderImputer(VAE(2, max_iter=5, random_state=0))
    >>> bool(np.isnan(imputer.fit_transform(X)).any())
    False
    """

    _parameter_constraints = {
        "estimator": [BaseAutoEncoder, None],
        "sample_posterior": ["boolean"],
        "add_indicator": ["boolean"],
        "keep_empty_features": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator=None,
        *,
        sample_posterior=False,
        add_indicator=False,
        keep_empty_features=False,
        random_state=None,
    ):
        self.estimator = estimator
        self.sample_posterior = sample_posterior
        self.add_indicator = add_indicator
        self.keep_empty_features = keep_empty_features
        self.random_state = random_state

    @validated
    def fit(self, X, y=None) -> Self:
        """Fit the estimator to X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in which cells may be missing: NaN, None or pandas.NA; a data frame may have categories.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        self : object
            Fitted imputer.

        Raises
        ------
        ValueError
            If X is not valid, or sample_posterior needs an estimator that can draw.
        """
        X = self._checked(X, reset=True)
        missing = is_missing_table(X)
        empty = missing.all(axis=0)
        if empty.all():
            raise ValueError("X has no observed value at all.")
        kept = _columns_of(X, np.flatnonzero(~empty))
        standardizer = _standardizer(kept, getattr(self.estimator, "categorical_features", "auto"))
        kept = _standardized(standardizer, kept)
        estimator = self._default(kept) if self.estimator is None else clone(self.estimator)
        if self.sample_posterior and not hasattr(estimator, "impute"):
            raise ValueError(
                f"sample_posterior=True needs an estimator with the method impute, which {type(estimator).__name__} "
                "does not have. Use VAE."
            )
        estimator.fit(kept)
        self.estimator_, self._standardizer_ = estimator, standardizer
        self._empty_, self._indicated_ = empty, np.flatnonzero(missing.any(axis=0))
        return self

    def _checked(self, X, reset):
        if sparse.issparse(X):
            raise TypeError("Sparse data was passed, but AutoEncoderImputer needs dense data. Use X.toarray().")
        if library(X) is None:
            return validate_data(self, X, reset=reset, dtype=None, ensure_all_finite="allow-nan")
        validate_data(self, X, reset=reset, skip_check_array=True)
        return X

    def _default(self, X):
        """A VAE with two components more than probabilistic PCA needs to predict cells that are held out."""
        rng = check_random_state(self.random_state)
        seed = int(rng.randint(2**31))
        vae = VAE(1, random_state=seed)
        scaler = scaler_for(vae, X)
        valid = scaler.validate(vae, X, reset=True)
        valid = valid[rng.permutation(len(valid))[:MOST_ROWS]]
        if len(valid) < 2 or (not np.isnan(valid).any() and valid.shape[1] < 3):
            return vae
        most = X.shape[0] // ROWS_OF_A_COMPONENT
        return VAE(best_size(scaler, valid, most, rng) + MORE_COMPONENTS, random_state=seed)

    def transform(self, X) -> Any:
        """Fill the missing cells of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to complete; those of `fit` or others.

        Returns
        -------
        X_filled : ndarray or data frame of shape (n_samples, n_features_out)
            The completed table; observed cells are as they were. A data frame with categories gives one of the same
            library, numbers and other arrays an ndarray.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X is not valid.
        """
        check_is_fitted(self)
        X = self._checked(X, reset=False)
        missing = is_missing_table(X)
        kept = _columns_of(X, np.flatnonzero(~self._empty_))
        scaled = _standardized(self._standardizer_, kept)
        if self.sample_posterior:
            filled = self.estimator_.impute(scaled, n_draws=1, random_state=self.random_state)[0]
        elif hasattr(self.estimator_, "impute"):
            filled = self.estimator_.impute(scaled)
        else:
            filled = reconstructed(self.estimator_, scaled)
        if self._standardizer_ is not None:  # observed cells stay as they are, to the last bit
            numbers = _numbers(kept)
            filled = np.where(np.isnan(numbers), self._standardizer_.inverse_transform(filled), numbers)
        if self.keep_empty_features and self._empty_.any():
            filled = stacked_columns(filled, self._empty_, list(self.get_feature_names_out())[: len(self._empty_)])
        if self.add_indicator:
            filled = _with_indicator(filled, missing[:, self._indicated_], self._names_of_indicators())
        named = library(filled) == "pandas" and not all(isinstance(name, str) for name in filled.columns)
        if named and (self.add_indicator or self.keep_empty_features):
            filled.columns = self.get_feature_names_out()  # names of both kinds would be refused by what follows
        return filled

    def get_feature_names_out(self, input_features=None) -> np.ndarray:
        """Names of the columns of the completed table.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the columns of X; None takes those of `fit`.

        Returns
        -------
        names : ndarray of str
            Names of the columns that are kept, then of the indicators.
        """
        check_is_fitted(self, "n_features_in_")
        names = _check_feature_names_in(self, input_features)
        kept = names if self.keep_empty_features else names[~self._empty_]
        if not self.add_indicator:
            return kept
        return np.concatenate([kept, np.asarray(self._names_of_indicators(names), dtype=object)])

    def _names_of_indicators(self, names=None):
        names = _check_feature_names_in(self, None) if names is None else names
        return [f"missingindicator_{names[place]}" for place in self._indicated_]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _standardizer(X, categorical_features):
    """Of a table of numbers, so that its columns count alike; None for one with categories, which the member scales."""
    if categorical_columns(X, categorical_features) is not None:
        return None
    return StandardScaler().set_output(transform="default").fit(_numbers(X))


def _standardized(scaler, X):
    return X if scaler is None else scaler.transform(_numbers(X))


def _numbers(X):
    array = check_array(X, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan", input_name="X")
    return np.asarray(array)


def best_size(scaler, X, most, rng):
    """Number of components with which probabilistic PCA predicts best, in squared error, cells that are held out."""
    x = scaler.fit(X).tensor(X, torch.device("cpu")).as_subclass(torch.Tensor).double()
    n_folds = 5 if X.size < 50_000 else 2
    fold_of_cell = rng.randint(n_folds, size=X.shape)
    sizes = getattr(scaler, "_sizes", lambda: (1,) * X.shape[1])()
    fold_of_input = torch.from_numpy(np.repeat(fold_of_cell, sizes, axis=1))
    candidates = [size for size in SIZES if size <= most and size < min(x.shape)] or [1]
    errors = [sum(_held_out_error(x, fold_of_input == fold, size) for fold in range(n_folds)) for size in candidates]
    return candidates[int(np.argmax(np.array(errors) <= TOLERANCE * min(errors)))]


def _held_out_error(x, held_out, size):
    seen = x.isfinite() & ~held_out
    axes = observed_axes(torch.where(seen, x, torch.nan), size)
    loadings, noise = factor_model(axes, size)
    z, _ = observed_posterior(torch.where(seen, x - axes.mean, 0), seen / noise, loadings)
    return float((x - axes.mean - z @ loadings.T)[held_out & x.isfinite()].square().sum())


def _columns_of(X, places):
    if library(X) == "pandas":
        return X.iloc[:, places]
    return X[:, places.tolist()]


def _with_indicator(filled, missing, names):
    if library(filled) is None:
        return np.hstack([filled, missing.astype(np.float64 if filled.dtype == object else filled.dtype)])
    columns = dict(zip(names, missing.astype(np.float64).T, strict=True))
    return filled.assign(**columns) if library(filled) == "pandas" else filled.with_columns(**_series(filled, columns))


def _series(frame, columns):
    series = type(frame.to_series(0))
    return {name: series(name, values) for name, values in columns.items()}
