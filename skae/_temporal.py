"""TDVAE: the temporal-difference variational autoencoder, for windows of a series."""

import math
import warnings
from numbers import Integral

import numpy as np
import torch
from scipy import sparse
from sklearn import config_context
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, InvalidParameterError
from sklearn.utils.validation import check_is_fitted

from ._base import BaseAutoEncoder
from ._declaration import parameter
from ._distributed import alone
from ._fitted import checked_draws
from ._imputation import standard_normal_draws
from ._losses import squared_error
from ._mapped import is_mapped
from ._rows import TableRows, at_least_one, checked_weights
from ._temporal_bound import log_weights, mean_bound, same_jump
from ._temporal_network import TemporalModule
from ._windows import n_overlapping

# Draws of the states whose mean is a prediction.
N_PREDICTED = 128


class TDVAE(BaseAutoEncoder):
    r"""Temporal-difference variational autoencoder, for windows of a series.

    A row is a window: `n_channels` numbers at each of its steps, one step after another, as `skae.windows` cuts them.
    A recurrent network gathers the observations x_1, ..., x_t into a belief b_t about the state z_t. For two times
    t1 < t2 of a window the objective is minus a bound on ln p(x_t2 | x_1, ..., x_t1) [1]_:

    .. math::
        \ell(x) = E \, [ KL(q_S(z_{t_1} | z_{t_2}, b_{t_1}, b_{t_2}) \Vert p_B(z_{t_1} | b_{t_1}))
        + \ln p_B(z_{t_2} | b_{t_2}) - \ln p_T(z_{t_2} | z_{t_1}, t_2 - t_1) - \ln p_D(x_{t_2} | z_{t_2}) ]

    with draws of z_t2 from p_B(z_t2 | b_t2) and z_t1 from q_S, eq. 6 to 8 of [1]_ with the divergence in closed form.
    All four distributions are normal, and p_T jumps over t2 - t1 steps at once. Each is a linear map plus a perceptron,
    or a recurrent network for p_B; linear systems with normal noise are of this form. ``transform`` returns the code of
    a window, the mean of the belief p_B after its last step, its components sorted: what the window tells of the
    future. ``forecast`` and ``sample_futures`` go on from there. ``inverse_transform`` is a regression of the window on
    its code that is trained beside, by squared error, and changes no code.

    Parameters
    ----------
    n_channels : int, default=1
        Numbers observed at each step. The columns of X are the channels of the first step, then those of the second,
        and so on; their number must be a multiple of this.

    hidden_layer_sizes : int or array-like of int, default=(128, 64)
        Widths of the hidden layers of p_T and q_S; p_D has them in reverse order, and the last is the number of units
        of the recurrent network. ``()`` makes all maps linear: a linear state-space model.

    init : {"pca", "random"}, default="pca"
        Initialization. With "pca" it is, in place of PCA, the linear state-space model of maximum likelihood, found by
        EM from the principal axes of what the first half of a window tells of the whole [2]_: beliefs are those of its
        Kalman filter. It is also the fallback, kept unless training is clearly better on the validation rows and on
        all. One network is trained. "random" starts at random weights, without a fallback.

    Attributes
    ----------
    n_steps_ : int
        Steps of a window.

    noise_variance_ : ndarray of shape (n_channels,), float64
        Variance of p_D, in squared units of X.

    See Also
    --------
    windows : Cuts windows from a series.
    VAE : For rows that are no windows.
    sklearn.model_selection.TimeSeriesSplit : As `cv`, several validation sets in the order of time; with
        ``gap=n_steps - 1`` no step of the training windows is in them.

    Notes
    -----
    Standardize the channels of a series first, as for PCA. Times start at 0, where nothing is observed yet: so p_B and
    p_T give the first step too, and ``sample`` draws whole windows. The mean of the bound for neighbouring times,
    of which `score_samples` is made, and of that for random jumps is minimized. A departure from the paper: gradients
    of jumps do not reach the beliefs. Where a far future is not normal its bound is loose, and made beliefs vaguer and
    predictions of the next step worse.

    Windows that overlap share steps: rows that validate must not be the neighbours of training rows. Where each row of
    X continues the one before, the last rows validate, at least 50 and at most a third of all, and rows that share
    steps with them do not train until epoch and initialization are chosen; then all rows do. With ``groups``, such as
    one for each series, whole groups validate, and ``cv`` and ``X_val`` decide alone: folds of ``cv=5`` are random
    rows. Sparse X and memory maps are not looked through for rows that overlap: give ``X_val`` or ``groups``.

    Missing steps, NaN, are left out of the loss, and the recurrent network sees which they are, if `fit` saw some. The
    linear part of a belief takes them as the mean of their step: with ``hidden_layer_sizes=()``, and at the
    initialization, that is worse than a Kalman filter that leaves them out. A linear system with normal noise has an
    exact solution, the Kalman filter, which this only approaches. Time and memory grow with the square of the
    components.

    ``partial_fit`` has no validation rows, and so no fallback: its steps, at a constant learning rate, leave a linear
    series a little below the initialization, and in the first calls any series.

    References
    ----------
    .. [1] Gregor, Papamakarios, Besse, Buesing, Weber (2019), "Temporal Difference Variational Auto-Encoder", ICLR,
       section 4. arXiv:1806.03107
    .. [2] Shumway and Stoffer (1982), "An approach to time series smoothing and forecasting using the EM algorithm",
       Journal of Time Series Analysis 3(4), section 3

    Examples
    --------
    >>> import numpy as np
    >>> from skae import TDVAE, windows
    >>> X = windows(np.sin(0.3 * np.arange(300)), n_steps=12)
    >>> model = TDVAE(2, max_iter=3, random_state=0).fit(X)
    >>> model.transform(X).shape, model.forecast(X, n_steps=5).shape, model.sample_futures(X, 5, n_draws=3).shape
    ((289, 2), (289, 5), (3, 289, 5))
    """

    n_channels: int = parameter(Interval(Integral, 1, None, closed="left"), default=1, defines_network=True)
    categorical_features = None  # not a parameter here: all columns are numbers

    def _loss(self, module, x):
        beliefs = module.beliefs(x)
        x_hat = module.decode(module.code_of(beliefs).detach())
        return 0.5 * squared_error(x, x_hat) / module.n_steps - mean_bound(module, x, beliefs)

    def _build_module(self, n_features, n_components, scale, **options):
        hidden = self._hidden_layer_sizes()
        return TemporalModule(n_features, n_components, hidden, self.activation, self.n_channels, **options)

    def _check_parameters(self):
        super()._check_parameters()
        if self.n_features_in_ % self.n_channels:
            raise InvalidParameterError(
                f"n_channels={self.n_channels} does not divide the {self.n_features_in_} columns of X: a row has the "
                "channels of the first step, then those of the second, and so on."
            )

    def _splits(self, X, y, groups, weights=None):
        splits = super()._splits(X, y, groups, weights)
        if splits is not None or groups is not None or not self.early_stopping or is_mapped(X) or sparse.issparse(X):
            return splits
        with config_context(array_api_dispatch=False):
            X = check_array(X, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan")
        rows = np.arange(len(X)) if weights is None else np.flatnonzero(weights)
        X = X[rows]
        n_shared = n_overlapping(X, self.n_channels)
        n_validation = self._n_validation_rows(len(X))
        n_training = len(X) - n_validation - n_shared
        if not n_shared:
            return None
        alone("A fit to windows that overlap, without X_val,")
        if self.warm_start or self.validation_fraction != "auto" or n_training < n_validation:
            warnings.warn(
                "Windows of X overlap, and validation windows share steps with training windows: the validation loss "
                "is too good. Pass X_val or groups, or use validation_fraction='auto' without warm_start.",
                stacklevel=5,
            )
            return None
        return [(rows[:n_training], rows[len(X) - n_validation :])]

    def _after_fit(self, X, sample_weight):
        self.n_steps_ = self.n_features_in_ // self.n_channels

    @property
    def noise_variance_(self):
        check_is_fitted(self)
        return self.module_.log_noise.detach().exp().numpy(force=True) * self.scale_**2

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = tags.input_tags.string = False
        return tags

    def forecast(self, X, n_steps=1, jumpy=False):
        """Predict what follows each window: means of the observations, over 128 draws of the states.

        The draws are the same for all rows: deterministic.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Windows.
        n_steps : int, default=1
            How many steps to predict. ``forecast(X, n)[:, -n_channels:]`` is the n-th alone.
        jumpy : bool, default=False
            Reach each step by one jump from the last belief, as in the paper, in place of one step after another.
            Beyond the length of a window, or 40 steps, jumps are put together. A jump over several steps of a nonlinear
            series is harder to learn: on Lorenz's attractor the error two steps ahead was more than four times that of
            single steps. Errors of single steps add up: on 200 years of sunspots one jump was better ten years ahead
            (a Kalman filter was better still).

        Returns
        -------
        X_next : ndarray of shape (n_samples, n_steps * n_channels), float32 for float32 X and float64 otherwise
            Predictions, in the units of X: all channels of the first step after the window, then those of the second.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X is not valid, or n_steps is not a positive integer.
        """
        X = self._validate(X)
        n_steps, module = at_least_one(n_steps=n_steps), self.module_
        longest = module.longest if jumpy else 1
        noise = torch.from_numpy(standard_normal_draws(N_PREDICTED, 2 * self.n_components_))

        def predicted(x):
            beliefs, means = module.beliefs(self._scaler_.transform(x)), []
            first, second = noise.to(x)[:, None].expand(-1, len(x), -1).chunk(2, -1)
            z = beliefs.last().draw(first)
            for done in range(0, n_steps, longest):
                for jump in range(1, min(longest, n_steps - done) + 1):
                    following = module.transit(z, same_jump(z, jump)).draw(second)
                    means.append(module.observe(following).mean(0))
                z, order = following, torch.Generator().manual_seed(done)
                second = second[torch.randperm(N_PREDICTED, generator=order).to(x.device)]
            return self._in_units(torch.stack(means, -2)).flatten(-2)

        return self._map(
            X, predicted, n_steps * module.n_channels, N_PREDICTED * max(2 * self.n_components_**2, module.n_channels)
        )

    def sample_futures(self, X, n_steps=1, n_draws=1, random_state=None):
        """Draw what could follow each window: states from the last belief on, one step after another, and observations.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Windows.
        n_steps : int, default=1
            Steps of a future.
        n_draws : int, default=1
            Futures of each window.
        random_state : int, RandomState instance or None, default=None
            Determines the draws, together with the rows of X: other rows beside a window give it other futures.

        Returns
        -------
        futures : ndarray of shape (n_draws, n_samples, n_steps * n_channels)
            In the units of X, with the noise of the observations, float32 for float32 X and float64 otherwise.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X is not valid, or n_steps or n_draws is not a positive integer.
        """
        X = self._validate(X)
        n_steps, n_draws = at_least_one(n_steps=n_steps), at_least_one(n_draws=n_draws)
        rng = check_random_state(random_state)
        width = n_steps * self.module_.n_channels

        def drawn(x):
            beliefs = self.module_.beliefs(self._scaler_.transform(x))
            futures = self._in_units(
                self._rolled(beliefs.last(), n_draws, n_steps, rng)
            )  # (n_draws, n_rows, n_steps, ...)
            return futures.transpose(0, 1).flatten(1)

        futures = self._map(X, drawn, n_draws * width, n_draws * (2 * self.n_components_**2 + width))
        return np.ascontiguousarray(futures.reshape(len(futures), n_draws, width).swapaxes(0, 1))

    def sample(self, n_samples=1, random_state=None):
        """Draw new windows: a state before the first step, the states that follow it, and observations.

        Parameters
        ----------
        n_samples : int, default=1
            Number of windows.
        random_state : int, RandomState instance or None, default=None
            Determines the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features_in_), float64
            New windows, in the units of X, with the noise of the observations.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If n_samples is not a positive integer.
        """
        check_is_fitted(self)
        (n_samples, rng), module = checked_draws(n_samples, random_state), self.module_
        with torch.inference_mode():
            nothing = next(module.parameters()).new_zeros(1, self.n_features_in_)
            first, _ = module.beliefs(nothing).at(torch.zeros(1, 1, dtype=torch.long, device=nothing.device))
            x = self._rolled(first, n_samples, module.n_steps, rng)[:, 0, 0].flatten(1)
            return self._scaler_.inverse_transform(x).numpy(force=True)

    def score_samples(self, X, n_draws=20):
        r"""Bound on the log-likelihood of each window.

        .. math:: \sum_{t=1}^T \ln \frac{1}{K} \sum_{k=1}^K \frac{p_D(x_t | z_t^k) \, p_T(z_t^k | z_{t-1}^k, 1) \,
            p_B(z_{t-1}^k | b_{t-1})}{p_B(z_t^k | b_t) \, q_S(z_{t-1}^k | z_t^k, b_{t-1}, b_t)}

        with K draws from the distributions in the denominator: a bound on the sum of ln p(x_t | b_{t-1}), each with its
        observation left to come, so that their product is a density of windows. For K = 1 it is the objective for
        neighbouring times, and it rises with K (Burda et al. 2016, eq. 8). The bound is one in expectation over the
        draws. These are a scrambled Sobol sequence with a constant seed, the same for all rows: deterministic, and with
        few draws of many components now and then too high.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Windows.
        n_draws : int, default=20
            Draws K at each step. Cost grows in proportion.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,), float64
            In nats, in the units of X. Missing cells are left out.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X is not valid, or n_draws is not a positive integer.
        """
        X = self._validate(X)
        noise = standard_normal_draws(at_least_one(n_draws=n_draws), 2 * self.n_components_)

        def bound(x):
            x = self._scaler_.transform(x)
            beliefs, x = self.module_.beliefs(x), TableRows.of(x)
            weights = log_weights(self.module_, x, beliefs, torch.from_numpy(noise).to(x))
            return (weights.logsumexp(0) - math.log(n_draws)).sum(-1)

        module, k = self.module_, self.n_components_  # of each draw and step: matrices, and inputs of the perceptrons
        width = n_draws * module.n_steps * max(5 * k**2, 3 * k + 2 * module.n_units, module.n_channels)
        return self._map(X, bound, None, width) - self._scaler_.log_scale(X)

    def score(self, X, y=None, sample_weight=None):
        """Mean over windows of `score_samples`: a bound on the log-likelihood, in nats; higher is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Windows.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            How much each window counts in the mean. None is one for each.

        Returns
        -------
        score : float
            In nats a window, in the units of X.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X or sample_weight is not valid.
        """
        scores = self.score_samples(X)
        return float(np.average(scores, weights=checked_weights(sample_weight, scores)))

    def _observed(self, x):
        return x  # beliefs take a missing cell as it is: the reconstruction of a window would look ahead

    def _in_units(self, x):
        """Observations (..., n_channels) that follow a window, in the units of X."""
        # of the last step: others are further away
        mean = torch.from_numpy(self.mean_[-self.module_.n_channels :]).to(x)
        return mean + self.scale_ * x

    def _rolled(self, beliefs, n_draws, n_steps, rng):
        """Observations at the steps after beliefs about the state: (n_draws, ..., n_steps, n_channels)."""

        def noise(like):
            return torch.from_numpy(rng.standard_normal(like.shape)).to(like)

        module, steps = self.module_, []
        z = beliefs.draw(noise(beliefs.mean.expand(n_draws, *beliefs.mean.shape)))
        for _ in range(n_steps):
            z = module.transit(z, same_jump(z, 1)).draw(noise(z))
            x = module.observe(z)
            steps.append(x + (0.5 * module.log_noise).exp() * noise(x))
        return torch.stack(steps, -2)
