"""ConditionalVAE: a variational autoencoder given some of the columns."""

from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from ._base_vae import BaseVAE
from ._columns import is_missing_table
from ._condition import ConditionalScaler, WithoutCondition
from ._declaration import parameter
from ._fitted import checked_draws
from ._layers import LinearPlusPerceptron, PosteriorEncoder
from ._networks import VariationalModule


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
        Columns of X that are the condition: indices, or names if X is a data frame. None is no condition. They may be
        numbers or, as `categorical_features` says, categories.

    init : {"pca", "random"}, default="pca"
        Initialization, as in VAE. "pca" is here a linear regression on the condition with probabilistic PCA of its
        residuals, which is also the fallback.

    Attributes
    ----------
    condition_indices_ : ndarray of shape (n_condition_features,), int
        Columns of X that are the condition.

    n_conditions_ : int
        Number of inputs of the condition: one for a number, one for each category, and one for each column that had
        missing cells.

    mean_ : ndarray of shape (n_modelled,), float64
        Mean of each modelled column, of each category its share; zeros for the likelihood "bernoulli".

    scale_ : float
        Root mean square deviation over all modelled columns, by which they are divided: one number, so that PCA stays
        PCA. 1 for the likelihood "bernoulli", and if categories are modelled, as each number then has its own scale.

    noise_variance_ : float or ndarray of shape (n_modelled,)
        Variance of the Gaussian likelihood, in squared units of X; not for "bernoulli". If modelled columns have
        missing cells or categories, that of each, NaN for categories.

    See Also
    --------
    VAE : Models all columns.

    Notes
    -----
    `score` and `score_samples` are bounds on ln p(x | c) in nats, in the units of X.

    Scale the modelled columns only, as with ``ColumnTransformer([("scale", StandardScaler(), modelled)],
    remainder="passthrough")``, which puts the condition last. The ``inverse_transform`` of a pipeline takes no
    condition: call that of its last step. Cells may be missing in either part. A missing cell of the condition, or one
    with a category that `fit` did not see, is taken as the mean; `impute` fills the modelled columns only.

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

    def _build_module(self, n_features, n_components, scale, n_conditions=0, **options):
        module = partial(ConditionalModule, n_conditions)
        return super()._build_module(n_features - n_conditions, n_components, scale, module, **options)

    def _build_scaler(self):
        probabilities = self.likelihood == "bernoulli"
        if self.condition_features is None or len(self.condition_features) == 0:
            return WithoutCondition(probabilities)
        return ConditionalScaler(np.asarray(self.condition_features).tolist(), probabilities)

    def _given(self, condition, n_rows):
        """Codes and numbers of the condition of each row, (n_rows, n_condition_features), from what a caller gave."""
        if self.n_conditions_ == 0 and condition is not None:
            raise ValueError("condition was given, but ConditionalVAE was fitted without condition_features.")
        if self.n_conditions_ and condition is None:
            raise ValueError(
                "ConditionalVAE was fitted with a condition and needs one: pass condition=..., the values of the "
                f"{len(self.condition_indices_)} condition_features, one row for all or one for each."
            )
        if hasattr(condition, "columns") and hasattr(self, "feature_names_in_"):
            names = self.feature_names_in_[self.condition_indices_].tolist()
            if missing := sorted(set(names) - set(condition.columns)):
                raise ValueError(f"condition lacks the columns {missing} of condition_features.")
            condition = condition[names]
        elif hasattr(condition, "to_frame") and hasattr(self, "feature_names_in_"):  # a row of a data frame
            names = self.feature_names_in_[self.condition_indices_].tolist()
            condition = condition[names] if set(names) <= set(condition.index) else condition
        return None if condition is None else self._scaler_.given_codes(condition, n_rows)

    def _beside(self, Z, given):
        """Codes with the condition beside them, as the decoder takes them."""
        condition = self._scaler_.condition(torch.tensor(given)).numpy()
        return np.hstack([Z, condition.astype(Z.dtype)])

    def _with_given(self, rows, given):
        """A table of rows of modelled columns and the condition."""
        rows[:, self.condition_indices_] = given
        return self._scaler_.table(rows)

    def _reconstruct(self, inputs):
        if not self.n_conditions_:
            return super()._reconstruct(inputs)
        module, condition = self.module_, inputs[:, len(self.mean_) :]
        return torch.cat([module.decode(torch.cat([module.encode(inputs), condition], 1)), condition], 1)

    def inverse_transform(self, X, condition=None) -> Any:
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
            All columns of X, the condition as it was given. If X of `fit` had categories, a table of its kind and with
            its dtypes, to which a condition is rounded; but not those of NumPy's integers and booleans where cells of
            the condition are missing.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X has another number of columns than `n_components_`, or NaN or infinity, or if the condition is not
            given, has the wrong shape or a category that `fit` did not see. Its cells may be missing, NaN.
        """
        Z = self._validate_codes(X)
        given = self._given(condition, len(Z))
        if given is None:
            return super().inverse_transform(X)
        return self._with_given(self._map(self._beside(Z, given), self._decode, self.n_features_in_), given)

    def sample(self, n_samples: int = 1, condition=None, random_state=None) -> Any:
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
            New rows, the condition as it was given and the other columns with the noise of the likelihood. If X of
            `fit` had categories, a table of its kind and with its dtypes.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If n_samples is not a positive integer or the condition is not as `inverse_transform` needs it.
        """
        check_is_fitted(self)
        n_samples, rng = checked_draws(n_samples, random_state)
        given = self._given(condition, n_samples)
        if given is None:
            return super().sample(n_samples, rng)
        codes = self._beside(self._draw_codes(n_samples, rng), given)
        return self._with_given(self._drawn_rows(codes, rng), given)

    def impute(self, X, n_draws: int | None = None, random_state=None) -> Any:
        check_is_fitted(self)
        if len(self.condition_indices_) and is_missing_table(X)[:, self.condition_indices_].any():
            raise ValueError(
                "Cells of the condition are missing, which ConditionalVAE does not model. Impute them first, or use "
                "VAE, which models all columns."
            )
        return super().impute(X, n_draws, random_state)

    impute.__doc__ = BaseVAE.impute.__doc__


class ConditionalModule(VariationalModule):
    """A variational module whose encoder and decoder take the condition beside their input."""

    def __init__(self, n_conditions, n_features, n_components, hidden_layer_sizes, activation, **options):
        super().__init__(n_features, n_components, hidden_layer_sizes, activation, **options)
        self.n_conditions = n_conditions
        if n_conditions:
            bias, sizes = self.decoder.linear.bias, hidden_layer_sizes
            if self.fills:
                column_of_input = self.columns.column_of_input
                options = dict(column_of_input=column_of_input, n_conditions=n_conditions)
                self.encoder = PosteriorEncoder(n_features, sizes, n_components, activation, **options)
            else:
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
        self.decoder.linear.weight[:, -len(slopes) :] = slopes.T
        if self.fills:
            self.encoder.regression.weight.copy_(slopes.T)
            return
        encode = self.encoder.linear.weight[:, : slopes.shape[1]]
        self.encoder.linear.weight[:, slopes.shape[1] :] = -encode @ slopes.T


def slopes(modelled, condition, rows=None, weights=None):
    """Least squares of the modelled columns on the condition, of least norm: shape (n_conditions, n_modelled).

    That of a column with missing cells is from the rows in which it is observed.
    """
    if rows is not None:
        modelled, condition = modelled[rows], condition[rows]
        weights = None if weights is None else weights[rows.cpu()]
    missing = modelled.isnan()
    if not missing.any():
        return _slopes(modelled, condition, weights)
    found = [
        _slopes(column[~hole, None], condition[~hole], None if weights is None else weights[~hole.cpu()])
        for column, hole in zip(modelled.T, missing.T, strict=True)
    ]
    return torch.cat(found, 1)


def _slopes(modelled, condition, weights):
    if weights is None:
        exact = (condition - condition.mean(0)).cpu().double()
        return (torch.linalg.pinv(exact, rtol=1e-6) @ modelled.cpu().double()).to(modelled)
    weights, exact = weights[:, None], condition.cpu().double()
    exact = weights.sqrt() * (exact - (weights * exact).sum(0) / weights.sum())
    return (torch.linalg.pinv(exact, rtol=1e-6) @ (weights.sqrt() * modelled.cpu().double())).to(modelled)
