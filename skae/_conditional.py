"""ConditionalVAE: a variational autoencoder given some of the columns."""

from functools import partial

import numpy as np
import torch
from scipy import sparse
from sklearn import config_context
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import _safe_indexing, check_array
from sklearn.utils._indexing import _get_column_indices
from sklearn.utils._missing import is_pandas_na, is_scalar_nan
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from ._base_vae import BaseVAE
from ._columns import categorical_columns
from ._declaration import parameter
from ._fitted import checked_draws
from ._layers import LinearPlusPerceptron
from ._networks import VariationalModule
from ._scaling import Scaler


class ConditionalVAE(BaseVAE):
    r"""Conditional variational autoencoder.

    Some columns of X, the condition c, are given, and the others, x, are modelled: codes z have the prior N(0, I)
    whatever the condition, x the likelihood p(x | z, c), and the encoder gives the normal posterior q(z | x, c).
    Together they minimize the mean over rows of

    .. math:: \ell(x, c) = -E_{q(z | x, c)} \ln p(x | z, c) + \beta \, KL(q(z | x, c) \Vert N(0, I))

    minus a bound on ln p(x | c) [1]_. The code need not carry what the condition determines: ``transform`` gives the
    rest, ``sample(n, condition=...)`` draws rows that meet a condition, and ``inverse_transform(Z, condition=...)``
    gives what a row would have been under another condition. The condition stays within X, so that pipelines and
    searches work as they are. Without a condition this is VAE.

    Parameters
    ----------
    condition_features : array-like of int or str, or None, default=None
        Columns of X that are the condition: indices, or names if X is a data frame. None is no condition.

    categorical_features : "auto" or array-like of int or str, default="auto"
        Which of them are categories, encoded one-hot; the others are numbers and are standardized. "auto" takes those
        whose values are not numbers, and those of the type "category" of a data frame.

    init : {"pca", "random"}, default="pca"
        Initialization, as in VAE. "pca" is here a linear regression on the condition with probabilistic PCA of its
        residuals, which is also the fallback.

    Attributes
    ----------
    condition_indices_ : ndarray of shape (n_condition_features,), int
        Columns of X that are the condition.

    condition_encoder_ : ColumnTransformer or None
        Encodes conditions as numbers.

    n_conditions_ : int
        Number of columns of the encoded condition.

    mean_ : ndarray of shape (n_modelled,), float64
        Mean of each modelled column, subtracted before encoding; zeros for the likelihood "bernoulli".

    scale_ : float
        Root mean square deviation over all modelled columns, by which they are divided: one number, so that PCA stays
        PCA. 1 for the likelihood "bernoulli".

    See Also
    --------
    VAE : Models all columns.

    Notes
    -----
    `score` and `score_samples` are bounds on ln p(x | c) in nats, in the units of X.

    Scale the modelled columns only, as with ``ColumnTransformer([("scale", StandardScaler(), modelled)],
    remainder="passthrough")``, which puts the condition last. The ``inverse_transform`` of a pipeline takes no
    condition: call that of its last step. Categories, and mean and scale of the condition, are those of the rows of
    `fit`, or of the first `partial_fit`. An unknown category is an error: in cross-validation every category must be
    present in the training rows of each fold.

    References
    ----------
    .. [1] Sohn, Lee, Yan (2015), "Learning Structured Output Representation using Deep Conditional Generative Models",
       NeurIPS, eq. 4, with the prior that its section 4.1 relaxes to, independent of the condition.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skae import ConditionalVAE
    >>> X, y = load_digits(return_X_y=True)
    >>> X = np.column_stack([X / 16, y])
    >>> model = ConditionalVAE(4, condition_features=[64], categorical_features=[64], max_iter=2, random_state=0)
    >>> threes = model.fit(X).sample(5, condition=[3], random_state=0)
    >>> threes.shape, threes[:, 64]
    ((5, 65), array([3., 3., 3., 3., 3.]))
    """

    condition_features: object = parameter("array-like", None, default=None, defines_network=True)
    categorical_features: object = parameter(
        StrOptions({"auto"}), "array-like", None, default="auto", defines_network=True
    )

    def _build_module(self, n_features, n_components, scale, n_conditions, **options):
        module = partial(ConditionalModule, n_conditions)
        return super()._build_module(n_features - n_conditions, n_components, scale, module, **options)

    def _build_scaler(self):
        probabilities = self.likelihood == "bernoulli"
        return ConditionalScaler(self.condition_features, self.categorical_features, probabilities)

    def _given(self, condition, n_rows):
        """One condition a row, shape (n_rows, n_condition_features), from what a caller gave."""
        n_columns = len(self.condition_indices_)
        if self.condition_encoder_ is None and condition is not None:
            raise ValueError("condition was given, but ConditionalVAE was fitted without condition_features.")
        if self.condition_encoder_ is not None and condition is None:
            raise ValueError(
                "ConditionalVAE was fitted with a condition and needs one: pass condition=..., the values of the "
                f"{n_columns} condition_features, one row for all or one for each."
            )
        if hasattr(condition, "columns") and hasattr(self, "feature_names_in_"):
            names = self.feature_names_in_[self.condition_indices_].tolist()
            if missing := sorted(set(names) - set(condition.columns)):
                raise ValueError(f"condition lacks the columns {missing} of condition_features.")
            condition = condition[names].to_numpy()
        table = without_missing(np.atleast_2d(np.asarray([] if condition is None else condition, dtype=object)))
        if table.shape not in ((1, n_columns), (n_rows, n_columns)):
            raise ValueError(
                f"condition must have shape ({n_columns},) or (n_samples, n_condition_features) = ({n_rows}, "
                f"{n_columns}), got {np.shape(condition)}."
            )
        return np.repeat(table, n_rows // len(table), axis=0)

    def _decode_given(self, Z, table):
        """Means of the modelled columns."""
        if self.condition_encoder_ is not None:
            Z = np.hstack([Z, self._scaler_.encode_condition(table).astype(Z.dtype)])
        return self._map(Z, self._decode, len(self.mean_))

    def _rows(self, modelled, table):
        """Rows like those of X, from their modelled columns and their condition."""
        if self.condition_encoder_ is None:
            return modelled
        numbers = np.array(table.tolist()).dtype.kind in "biuf"
        X = np.empty((len(table), self.n_features_in_), dtype=modelled.dtype if numbers else object)
        X[:, self.condition_indices_] = table
        X[:, np.setdiff1d(np.arange(self.n_features_in_), self.condition_indices_)] = modelled
        return X

    def inverse_transform(self, X, condition=None):
        """Decode codes under a condition.

        With the code of a row and another condition than its own: what the row would have been.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components_)
            Codes.
        condition : array-like of shape (n_condition_features,) or (n_samples, n_condition_features), default=None
            Values of `condition_features`, in their order: one row for all codes, or one for each. Needed if there
            are any.

        Returns
        -------
        X_original : ndarray of shape (n_samples, n_features_in_), float32 for float32 X and float64 otherwise
            All columns of X, the condition as it was given; an array of objects if it is not of numbers.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X has another number of columns than `n_components_`, or NaN or infinity, or if the condition is
            missing, has the wrong shape or a category that `fit` did not see.
        """
        Z = self._validate_codes(X)
        table = self._given(condition, len(Z))
        if self.condition_encoder_ is None:
            return super().inverse_transform(X)
        return self._rows(self._decode_given(Z, table), table)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.condition_features is None or len(self.condition_features) == 0
        return tags

    def sample(self, n_samples=1, condition=None, random_state=None):
        """Draw new rows that meet a condition: codes from the prior, then rows from the likelihood.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        condition : array-like of shape (n_condition_features,) or (n_samples, n_condition_features), default=None
            Values of `condition_features`, in their order: one row for all, or one for each. Needed if there are any.
        random_state : int, RandomState instance or None, default=None
            Determines the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features_in_), float64
            New rows, the condition as it was given and the other columns with the noise of the likelihood; an array of
            objects if the condition is not of numbers.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If n_samples is not a positive integer or the condition is not as `inverse_transform` needs it.
        """
        check_is_fitted(self)
        n_samples, rng = checked_draws(n_samples, random_state)
        table = self._given(condition, n_samples)
        if self.condition_encoder_ is None:
            return super().sample(n_samples, rng)
        mean = self._decode_given(self._draw_codes(n_samples, rng), table)
        return self._rows(self._add_noise(mean, rng), table)


def without_missing(table):
    """An array of objects, if all are there."""
    if any(value is None or is_scalar_nan(value) or is_pandas_na(value) for value in table.flat):
        raise ValueError(
            "Input condition contains NaN or another missing value. Impute it, or make it a category of its own."
        )
    return table


class ConditionalScaler(Scaler):
    """What the network sees of a row: the modelled columns, scaled together, then the encoded condition."""

    attributes = (*Scaler.attributes, "condition_indices_", "condition_encoder_", "n_conditions_")

    def __init__(self, condition_features, categorical_features, probabilities):
        super().__init__(probabilities)
        self.condition_features, self.categorical_features = condition_features, categorical_features
        self.condition_indices_, self.condition_encoder_, self.n_conditions_ = np.empty(0, dtype=int), None, 0

    @property
    def takes_tables(self):
        """Without a condition; with one, the scaler encodes its categories and the other columns are numbers."""
        return self.condition_features is None or len(self.condition_features) == 0

    def validate(self, estimator, X, reset, new=False, weights=None):
        """The modelled columns and the encoded condition of X, side by side."""
        fits = reset and self.condition_features is not None and len(self.condition_features) > 0
        if self.condition_encoder_ is None and not fits:
            return super().validate(estimator, X, reset, new)
        if sparse.issparse(X):
            raise TypeError(
                "Sparse data was passed, but ConditionalVAE with condition_features needs dense data. Use X.toarray()."
            )
        if not hasattr(X, "columns"):
            with config_context(array_api_dispatch=False):
                X = check_array(X, dtype=None, ensure_all_finite=False)  # categories may be strings
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        n_features = estimator.n_features_in_
        if fits:
            self._fit_condition(X, n_features, weights)
        condition = self.encode_condition(self._condition_of(X))
        rest = np.setdiff1d(np.arange(n_features), self.condition_indices_)
        modelled = _safe_indexing(X, rest, axis=1)
        if categorical_columns(modelled, "auto") is not None:
            raise ValueError(
                "ConditionalVAE with condition_features models numbers, and takes categories as a condition only. Add "
                "the other categorical columns to condition_features or encode them as numbers."
            )
        modelled = check_array(modelled, dtype=[np.float64, np.float32], input_name="X")
        return np.hstack([self._in_range(modelled, new), condition.astype(modelled.dtype)])

    def _fit_condition(self, X, n_features, weights):
        indices = np.asarray(_get_column_indices(X, list(self.condition_features)), dtype=int)
        if len(np.unique(indices)) < len(indices):
            raise ValueError(f"condition_features name a column twice: {list(self.condition_features)}.")
        if len(indices) >= n_features:
            raise ValueError("condition_features are all columns of X: at least one must be left to be modelled.")
        self.condition_indices_ = indices
        table = self._condition_of(X)
        for place, values in zip(indices.tolist(), table.T, strict=True):
            if dates := [value for value in values if hasattr(value, "strftime") or isinstance(value, np.datetime64)]:
                raise ValueError(
                    f"Column {place} of condition_features holds dates such as {dates[0]}, of which each would be a "
                    "category of its own. Make it a number, such as days since the first, or a category, such as the "
                    "month."
                )
        if isinstance(self.categorical_features, str):
            columns = [_safe_indexing(X, int(i), axis=1) for i in indices]
            is_category = [
                str(getattr(column, "dtype", "")) == "category" or np.array(values.tolist()).dtype.kind not in "iuf"
                for column, values in zip(columns, table.T, strict=True)
            ]
        else:
            named = [] if self.categorical_features is None else list(self.categorical_features)
            categories = _get_column_indices(X, named)
            if not set(categories) <= set(indices.tolist()):
                raise ValueError(
                    "categorical_features must be columns of X that are among condition_features, got "
                    f"{list(self.categorical_features)} and {list(self.condition_features)}."
                )
            is_category = np.isin(indices, categories)
        self.condition_encoder_ = ColumnTransformer(
            [
                ("categories", OneHotEncoder(sparse_output=False), np.flatnonzero(is_category)),
                ("numbers", StandardScaler(), np.flatnonzero(np.logical_not(is_category))),
            ]
        ).set_output(transform="default")
        self.n_conditions_ = self.condition_encoder_.fit_transform(table).shape[1]
        if weights is not None and not all(is_category):  # a ColumnTransformer takes none, unless routing is enabled
            numbers = table[:, np.logical_not(is_category)].astype(np.float64)
            self.condition_encoder_.named_transformers_["numbers"].fit(numbers, sample_weight=weights)

    def _condition_of(self, X):
        """The columns of X that are the condition, as objects: numbers and strings side by side."""
        columns = [_safe_indexing(X, int(i), axis=1) for i in self.condition_indices_]
        return without_missing(np.column_stack([np.asarray(column, dtype=object) for column in columns]))

    def encode_condition(self, table):
        return check_array(self.condition_encoder_.transform(table), input_name="condition")

    def fit(self, X, weights=None):
        return super().fit(X[:, : X.shape[1] - self.n_conditions_], weights)

    @property
    def n_inputs(self):
        return len(self.mean_) + self.n_conditions_

    def network_options(self):
        options = super().network_options() if self.takes_tables else {}
        return options | {"n_conditions": self.n_conditions_}

    def transform(self, x):
        concatenate = torch.cat if isinstance(x, torch.Tensor) else np.concatenate
        n_modelled = len(self.mean_)
        return concatenate([super().transform(x[:, :n_modelled]), x[:, n_modelled:]], 1)


class ConditionalModule(VariationalModule):
    """A variational module whose encoder and decoder take the condition beside their input."""

    def __init__(self, n_conditions, n_features, n_components, hidden_layer_sizes, activation, **options):
        super().__init__(n_features, n_components, hidden_layer_sizes, activation, **options)
        self.n_conditions = n_conditions
        if n_conditions:
            bias, sizes = self.decoder.linear.bias, hidden_layer_sizes
            self.encoder = LinearPlusPerceptron(n_features + n_conditions, sizes, 2 * n_components, activation)
            self.decoder = LinearPlusPerceptron(n_components + n_conditions, sizes[::-1], n_features, activation)
            self.decoder.linear.bias = bias

    def modelled(self, x):
        return x[..., : x.shape[-1] - self.n_conditions]

    def with_condition(self, z, x):
        condition = x[..., x.shape[-1] - self.n_conditions :]
        return torch.cat([z, condition.expand(*z.shape[:-1], -1)], -1)

    def principal_axes(self, x, n_axes, rows=None, weights=None):
        """Those of what a linear regression on the condition leaves of the modelled columns."""
        if self.n_conditions:
            modelled, condition = x.tensor_split([x.shape[1] - self.n_conditions], dim=1)
            x = modelled - condition @ slopes(modelled, condition, rows, weights)
        return super().principal_axes(x, n_axes, rows, weights)

    def initialize(self, x, rows, axes):
        super().initialize(x, rows, axes)
        if self.n_conditions:
            modelled, condition = x.tensor_split([x.shape[1] - self.n_conditions], dim=1)
            self.set_regression(slopes(modelled, condition, rows))

    @torch.no_grad()
    def set_regression(self, slopes):
        """Let the linear maps encode and decode what a regression leaves; slopes: (n_conditions, n_features)."""
        encode = self.encoder.linear.weight[:, : slopes.shape[1]]
        self.encoder.linear.weight[:, slopes.shape[1] :] = -encode @ slopes.T
        self.decoder.linear.weight[:, -len(slopes) :] = slopes.T


def slopes(modelled, condition, rows=None, weights=None):
    """Least squares of the modelled columns on the condition, of least norm: shape (n_conditions, n_modelled)."""
    if rows is not None:
        modelled, condition = modelled[rows], condition[rows]
    if weights is None:
        exact = (condition - condition.mean(0)).cpu().double()
        return (torch.linalg.pinv(exact, rtol=1e-6) @ modelled.cpu().double()).to(modelled)
    weights = weights[:, None] if rows is None else weights[rows.cpu()][:, None]
    exact = condition.cpu().double()
    exact = weights.sqrt() * (exact - (weights * exact).sum(0) / weights.sum())
    return (torch.linalg.pinv(exact, rtol=1e-6) @ (weights.sqrt() * modelled.cpu().double())).to(modelled)
