"""ConditionalVAE: a variational autoencoder given some of the columns."""

from functools import partial

import numpy as np
import torch
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import _safe_indexing, check_array
from sklearn.utils._indexing import _get_column_indices
from sklearn.utils._missing import is_pandas_na, is_scalar_nan
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from ._base import checked_draws
from ._base_vae import BaseVAE
from ._networks import LinearPlusPerceptron, VariationalModule, principal_axes


class ConditionalVAE(BaseVAE):
    r"""Conditional variational autoencoder.

    Some columns of X, the condition c, are given, and the others, x, are modelled: codes z have the prior N(0, I)
    whatever the condition, x the likelihood p(x | z, c), and the encoder gives the normal posterior q(z | x, c).
    Together they minimize the mean over rows of

    .. math:: \ell(x, c) = -E_{q(z | x, c)} \ln p(x | z, c) + \beta \, KL(q(z | x, c) \Vert N(0, I))

    minus a bound on ln p(x | c) [1]_. What the condition tells need not be in the code: ``transform`` gives what else
    there is, ``sample(n, condition=...)`` draws rows that meet a condition, and ``inverse_transform(Z, condition=...)``
    says what a row would have been under another one. The condition stays within X, so that pipelines and searches work
    as they are. Without a condition this is VAE.

    Parameters
    ----------
    n_components : int or float, default=2
        Number of components of the code. A float in (0, 1) takes the fewest for which PCA explains more than this share
        of the variance. It may exceed the number of features or rows: PCA then reconstructs the training rows exactly,
        the components beyond their rank start at zero, and any use that training finds for them must pay on held-out
        rows.

    condition_features : array-like of int or str, or None, default=None
        Columns of X that are the condition: indices, or names if X is a data frame. None is no condition.

    categorical_features : "auto" or array-like of int or str, default="auto"
        Which of them are categories, encoded one-hot; the others are numbers and are standardized. "auto" takes those
        whose values are not numbers, and those of the type "category" of a data frame.

    likelihood : {"gaussian", "bernoulli"}, default="gaussian"
        Distribution of a row given its code: normal with one variance for all features, or, for X in [0, 1],
        independent Bernoulli variables whose probabilities the decoder gives.

    noise_variance : float or None, default=None
        Variance of the Gaussian likelihood, in squared units of X. None learns it with the rest.

    beta : float, default=1.0
        Weight of the divergence. More makes codes more like the prior and the reconstruction coarser.

    hidden_layer_sizes : int or array-like of int, default=(128, 64)
        Widths of the encoder's hidden layers; the decoder has them in reverse. ``()`` makes both linear.

    activation : {"identity", "logistic", "tanh", "relu", "gelu", "silu"}, default="silu"
        Activation of the hidden layers.

    init : {"pca", "random"}, default="pca"
        Where training starts. "pca" starts at the principal axes of all rows of X and, as neither start is best on all
        data, also from random weights. The weights that are best on held-out rows are kept, but PCA itself unless they
        do clearly better there than PCA of the training rows: by one standard error of the mean gain, or for a share of
        rows above a half by two of its standard errors. Fewer than ten held-out rows cannot tell, and PCA is kept.
        "random" has the random start alone, at half the cost.

    alpha : float, default=0.1
        L2 regularization: decay of the weight matrices, decoupled from the gradient (each step multiplies them by
        ``1 - learning rate * alpha``).

    batch_size : int or "auto", default="auto"
        Rows in a training step. "auto" is a 40th of the training rows, at least 32 and at most 512, so that a fit takes
        about the same number of steps whatever the number of rows.

    learning_rate_init : float, default=0.005
        Highest learning rate of Adam. It is reached after a tenth of the steps and falls to zero as a cosine.

    max_iter : int or None, default=None
        Epochs at most: passes over the training rows, from each start. None is 400,000 divided by the number of rows,
        at least 55 and at most 100: 100 up to 4,000 rows, where more passes gain most and cost least.

    early_stopping : bool, default=True
        Whether to hold rows out to choose the best epoch. Otherwise all rows train and the training loss chooses.

    validation_fraction : float or "auto", default="auto"
        Share of the rows held out. "auto" is a tenth, but at least 50 rows and at most a third of all.

    n_iter_no_change : int, default=20
        Epochs without improvement by `tol` after which training ends.

    tol : float, default=1e-4
        Least improvement of the loss on held-out rows that counts, as a share of the loss.

    warm_start : bool, default=False
        Whether `fit` goes on from the weights of the previous one, keeping its mean and scale. What made the network
        (`n_components`, `hidden_layer_sizes`, `activation`, the loss) cannot change then.

    device : {"cpu", "cuda", "mps", "auto"}, default="cpu"
        Where to compute; "auto" takes an accelerator if there is one. For tables of some thousand rows a processor is
        as fast.

    random_state : int, RandomState instance or None, default=None
        Decides weights, held-out rows, batches and noise. An int makes results reproducible, bit for bit on the same
        machine.

    Attributes
    ----------
    condition_indices_ : ndarray of shape (n_condition_features,), int
        Columns of X that are the condition.

    condition_encoder_ : ColumnTransformer or None
        What turns conditions into numbers.

    n_conditions_ : int
        Number of these numbers.

    active_units_ : ndarray of shape (n_components_,), bool
        Components whose posterior mean varies over the rows of the fit: by more than 0.01, as in [2]_. A warning tells
        if there is none.

    noise_variance_ : float
        Variance of the Gaussian likelihood, in squared units of X; not for "bernoulli".

    module_ : torch.nn.Module
        The network, with ``encode`` and ``decode``, in float64.

    n_components_ : int
        Number of components.

    n_iter_ : int
        Epochs run, of the start that was kept.

    best_iter_ : int
        Epoch whose weights are kept; 0 is the start.

    loss_curve_ : list of float
        Mean loss of a training row in each epoch, for X divided by `scale_`.

    validation_curve_ : list of float or None
        Mean loss of a held-out row before training and after each epoch; None if no rows are held out.

    best_loss_ : float
        Mean loss of a held-out row (of a training row if none is held out) at the weights kept.

    mean_ : ndarray of shape (n_modelled,), float64
        Mean of each modelled column, subtracted before encoding. Zeros for the likelihood "bernoulli".

    scale_ : float
        Root mean square deviation over all modelled columns, by which they are divided: one number, so that PCA stays
        PCA. 1 for the likelihood "bernoulli".

    n_samples_ : int
        Number of rows in the training data.

    n_features_in_ : int
        Number of features seen during `fit`.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features seen during `fit`, if they are all strings.

    See Also
    --------
    VAE : Models all columns.

    Notes
    -----
    `score` and `score_samples` are bounds on ln p(x | c) in nats, in the units of X. Training starts as linear
    regression on the condition with probabilistic PCA of what that leaves, which is the floor here.

    Scale the modelled columns only, as with ``ColumnTransformer([("scale", StandardScaler(), modelled)],
    remainder="passthrough")``, which puts the condition last. A pipeline's own ``inverse_transform`` has no place for a
    condition: call that of its last step. Categories are those of the rows of `fit`, or of the first `partial_fit`;
    another one is an error, so that in cross-validation each must be frequent enough for every fold.

    References
    ----------
    .. [1] Sohn, Lee, Yan (2015), "Learning Structured Output Representation using Deep Conditional Generative Models",
       NeurIPS, eq. 4, with the prior that its section 4.1 relaxes to, independent of the condition.
    .. [2] Burda, Grosse, Salakhutdinov (2016), "Importance Weighted Autoencoders", section 5.2. arXiv:1509.00519

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

    _of_what = "that the condition does not tell, if there is anything"

    _parameter_constraints: dict = {
        **BaseVAE._parameter_constraints,
        "condition_features": ["array-like", None],
        "categorical_features": [StrOptions({"auto"}), "array-like"],
    }

    def __init__(
        self,
        n_components=2,
        *,
        condition_features=None,
        categorical_features="auto",
        likelihood="gaussian",
        noise_variance=None,
        beta=1.0,
        hidden_layer_sizes=(128, 64),
        activation="silu",
        init="pca",
        alpha=0.1,
        batch_size="auto",
        learning_rate_init=0.005,
        max_iter=None,
        early_stopping=True,
        validation_fraction="auto",
        n_iter_no_change=20,
        tol=1e-4,
        warm_start=False,
        device="cpu",
        random_state=None,
    ):
        super().__init__(
            n_components=n_components,
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            init=init,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate_init=learning_rate_init,
            max_iter=max_iter,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            warm_start=warm_start,
            device=device,
            random_state=random_state,
        )
        self.condition_features = condition_features
        self.categorical_features = categorical_features
        self.likelihood = likelihood
        self.noise_variance = noise_variance
        self.beta = beta

    def _log_likelihood(self, module, x, z):
        n_modelled = x.shape[-1] - module.n_conditions
        condition = x[..., n_modelled:].expand(*z.shape[:-1], -1)
        return super()._log_likelihood(module, x[..., :n_modelled], torch.cat([z, condition], -1))

    def _build_module(self, n_features, n_components, scale):
        module = partial(ConditionalModule, self.n_conditions_)
        return super()._build_module(n_features - self.n_conditions_, n_components, scale, module)

    # The rows of the network are the modelled columns, then the encoded condition.

    def _centre_and_unit(self, X):
        return super()._centre_and_unit(X[:, : X.shape[1] - self.n_conditions_])

    def _standardize(self, x, mean, scale):
        concatenate = torch.cat if isinstance(x, torch.Tensor) else np.concatenate
        return concatenate([(x[:, : len(mean)] - mean) / scale, x[:, len(mean) :]], 1)

    def _principal_axes(self, x, n_axes, rows=None):
        """Those of what a linear regression on the condition leaves of the modelled columns."""
        modelled, condition = x.tensor_split([x.shape[1] - self.n_conditions_], dim=1)
        return principal_axes(modelled - condition @ slopes(modelled, condition, rows), n_axes, rows)

    def _start_at_rows(self, module, x, rows):
        if module.n_conditions:
            modelled, condition = x.tensor_split([x.shape[1] - module.n_conditions], dim=1)
            module.start_at_regression(slopes(modelled, condition, rows))

    def _validate(self, X, reset=False):
        """The modelled columns and the encoded condition of X, side by side."""
        if reset:
            self.condition_indices_, self.condition_encoder_, self.n_conditions_ = np.empty(0, dtype=int), None, 0
        else:
            check_is_fitted(self)
        has_condition = self.condition_features is not None and len(self.condition_features) > 0
        if self.condition_encoder_ is None and not (reset and has_condition):
            return super()._validate(X, reset)
        if not hasattr(X, "columns"):
            X = check_array(X, dtype=None, ensure_all_finite=False)  # categories may be strings
        validate_data(self, X, reset=reset, skip_check_array=True)
        if reset:
            self._fit_condition(X)
        condition = self._encode_condition(self._condition_of(X))
        rest = np.setdiff1d(np.arange(self.n_features_in_), self.condition_indices_)
        modelled = check_array(_safe_indexing(X, rest, axis=1), dtype=[np.float64, np.float32], input_name="X")
        self._check_unit_interval(modelled, reset)
        return np.hstack([modelled, condition.astype(modelled.dtype)])

    def _fit_condition(self, X):
        indices = np.asarray(_get_column_indices(X, list(self.condition_features)), dtype=int)
        if len(np.unique(indices)) < len(indices):
            raise ValueError(f"condition_features name a column twice: {list(self.condition_features)}.")
        if len(indices) >= self.n_features_in_:
            raise ValueError("condition_features are all columns of X: at least one must be left to be modelled.")
        self.condition_indices_ = indices
        table = self._condition_of(X)
        if isinstance(self.categorical_features, str):
            columns = [_safe_indexing(X, int(i), axis=1) for i in indices]
            is_category = [
                str(getattr(column, "dtype", "")) == "category" or np.array(values.tolist()).dtype.kind not in "iuf"
                for column, values in zip(columns, table.T, strict=True)
            ]
        else:
            categories = _get_column_indices(X, list(self.categorical_features))
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

    def _condition_of(self, X):
        """The columns of X that are the condition, as objects: numbers and strings side by side."""
        columns = [_safe_indexing(X, int(i), axis=1) for i in self.condition_indices_]
        return without_missing(np.column_stack([np.asarray(column, dtype=object) for column in columns]))

    def _encode_condition(self, table):
        return check_array(self.condition_encoder_.transform(table), input_name="condition")

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
            Z = np.hstack([Z, self._encode_condition(table).astype(Z.dtype)])
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
        """Decode codes under a condition: of a row's own code and another condition, what it would have been.

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
        return self._rows(self._decode_given(Z, table), table)

    def sample(self, n_samples=1, condition=None, random_state=None):
        """Draw new rows that meet a condition: codes from the prior, then rows from the likelihood.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        condition : array-like of shape (n_condition_features,) or (n_samples, n_condition_features), default=None
            Values of `condition_features`, in their order: one row for all, or one for each. Needed if there are any.
        random_state : int, RandomState instance or None, default=None
            Decides the draws.

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
        mean = self._decode_given(self._draw_codes(n_samples, rng), table)
        return self._rows(self._add_noise(mean, rng), table)


def without_missing(table):
    """An array of objects, if all are there."""
    if any(value is None or is_scalar_nan(value) or is_pandas_na(value) for value in table.flat):
        raise ValueError(
            "Input condition contains NaN or another missing value. Impute it, or make it a category of its own."
        )
    return table


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

    @torch.no_grad()
    def start_at_regression(self, slopes):
        """Let the linear maps encode and decode what a regression leaves; slopes: (n_conditions, n_features)."""
        encode = self.encoder.linear.weight[:, : slopes.shape[1]]
        self.encoder.linear.weight[:, slopes.shape[1] :] = -encode @ slopes.T
        self.decoder.linear.weight[:, -len(slopes) :] = slopes.T


def slopes(modelled, condition, rows=None):
    """Least squares of the modelled columns on the condition, of least norm: shape (n_conditions, n_modelled)."""
    if rows is not None:
        modelled, condition = modelled[rows], condition[rows]
    exact = (condition - condition.mean(0)).cpu().double()
    return (torch.linalg.pinv(exact, rtol=1e-6) @ modelled.cpu().double()).to(modelled)
