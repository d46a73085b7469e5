"""VAE: the variational autoencoder."""

import math
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ._base import BaseAutoEncoder
from ._losses import (
    bernoulli_log_likelihood,
    gaussian_log_likelihood,
    normal_log_density,
    reparameterize,
    standard_normal_kl,
)
from ._networks import VariationalModule

# Rows times draws that pass through the decoder together: only speed and memory depend on it.
DRAWS_AT_ONCE = 4096


class VAE(BaseAutoEncoder):
    r"""Variational autoencoder.

    Codes z have the prior N(0, I), rows the likelihood p(x | z) of the decoder, and the encoder gives the posterior
    q(z | x), normal with diagonal covariance. Together they minimize the mean over rows of

    .. math:: \ell(x) = -E_{q(z | x)} \ln p(x | z) + \beta \, KL(q(z | x) \Vert N(0, I))

    with one reparameterized draw of z and the divergence in closed form [1]_; for beta = 1 this is minus the evidence
    lower bound on ln p(x). ``transform`` returns the posterior mean, which is deterministic. Without hidden layers the
    Gaussian model is probabilistic PCA, from where training starts [2]_.

    Parameters
    ----------
    n_components : int or float, default=2
        Number of components of the code. A float in (0, 1) takes the fewest for which PCA explains more than this share
        of the variance. It may exceed the number of features or rows: PCA then reconstructs the training rows exactly,
        the components beyond their rank start at zero, and any use that training finds for them must pay on held-out
        rows.

    likelihood : {"gaussian", "bernoulli"}, default="gaussian"
        Distribution of a row given its code: normal with one variance for all features, or, for X in [0, 1],
        independent Bernoulli variables whose probabilities the decoder gives.

    noise_variance : float or None, default=None
        Variance of the Gaussian likelihood, in squared units of X. None learns it with the rest.

    beta : float, default=1.0
        Weight of the divergence [3]_. More makes codes more like the prior and the reconstruction coarser.

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

    mean_ : ndarray of shape (n_features_in_,), float64
        Mean of each feature, subtracted before encoding. Zeros for the
        likelihood "bernoulli".

    scale_ : float
        Root mean square deviation over all features, by which X is divided: one number, so that PCA stays PCA. 1
        for the likelihood "bernoulli".

    n_samples_ : int
        Number of rows in the training data.

    n_features_in_ : int
        Number of features seen during `fit`.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features seen during `fit`, if they are all strings.

    See Also
    --------
    AutoEncoder : Reconstructs better, but gives no density.
    sklearn.decomposition.PCA : Its `score` is the log-likelihood of the linear model.

    Notes
    -----
    Standardize the columns of a table first, as for PCA; divide pictures by their maximum. `score` and `score_samples`
    are log-likelihood bounds in nats, in the units of X: scaling X changes them, as it changes any density.

    References
    ----------
    .. [1] Kingma and Welling (2014), "Auto-Encoding Variational Bayes", eq. 7 and 10. arXiv:1312.6114
    .. [2] Lucas, Tucker, Grosse, Norouzi (2019), "Don't Blame the ELBO! A Linear VAE Perspective on Posterior
       Collapse", section 4. arXiv:1911.02469
    .. [3] Higgins et al. (2017), "beta-VAE", eq. 4. ICLR.
    .. [4] Burda, Grosse, Salakhutdinov (2016), "Importance Weighted Autoencoders", eq. 8. arXiv:1509.00519

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import VAE
    >>> X = load_digits().data / 16
    >>> vae = VAE(n_components=4, likelihood="bernoulli", max_iter=2, random_state=0).fit(X)
    >>> vae.transform(X).shape, vae.sample(3, random_state=0).shape, vae.score_samples(X[:5]).shape
    ((1797, 4), (3, 64), (5,))
    """

    _of_training = BaseAutoEncoder._of_training | {"beta"}

    _parameter_constraints: dict = {
        **BaseAutoEncoder._parameter_constraints,
        "likelihood": [StrOptions({"gaussian", "bernoulli"})],
        "noise_variance": [None, Interval(Real, 0, None, closed="neither")],
        "beta": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_components=2,
        *,
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
        self.likelihood = likelihood
        self.noise_variance = noise_variance
        self.beta = beta

    def _loss(self, module, x):
        mean, log_var = module.posterior(x)
        z = reparameterize(mean, log_var)
        return -self._log_likelihood(module, x, z) + self.beta * standard_normal_kl(mean, log_var)

    def _log_likelihood(self, module, x, z):
        if module.probabilities:
            return bernoulli_log_likelihood(x, module.logits(z))
        return gaussian_log_likelihood(x, module.decode(z), module.log_noise)

    def _build_module(self, n_features, n_components, scale):
        return VariationalModule(
            n_features,
            n_components,
            self._hidden_layer_sizes(),
            self.activation,
            probabilities=self._probabilities(),
            noise_variance=None if self.noise_variance is None else self.noise_variance / scale**2,
            beta=self.beta,
        )

    def _probabilities(self):
        return self.likelihood == "bernoulli"

    def _code_unit(self):
        return 1.0  # that of the prior

    @property
    def noise_variance_(self):
        check_is_fitted(self)
        if self.module_.probabilities:
            raise AttributeError("Only the Gaussian likelihood has a noise variance.")
        return float(self.module_.log_noise.detach().exp()) * self.scale_**2

    def score_samples(self, X, n_draws=100):
        r"""Importance-weighted bound on the log-likelihood of each row.

        .. math:: \ln \frac{1}{K} \sum_{k=1}^K \frac{p(x | z_k) p(z_k)}{q(z_k | x)}, \quad z_k \sim q(z | x)

        (Burda et al. 2016, eq. 8). It rises towards ln p(x) with the number of draws K. All rows share the draws behind
        the z_k, a scrambled Sobol sequence seeded by a constant: the bound is deterministic, and the same for a row
        whatever rows stand beside it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data to score.
        n_draws : int, default=100
            Draws K for each row. Cost grows in proportion.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,), float64
            In nats, in the units of X: for the Gaussian likelihood a log-density of X itself, not of X divided by
            `scale_`.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X is not valid.
        """
        X = self._validate(X)
        return self._bound(X, n_draws, lambda log_weights: torch.logsumexp(log_weights, 0) - math.log(n_draws))

    def elbo(self, X, n_draws=100):
        r"""Evidence lower bound of each row and its two terms.

        .. math:: E_{q(z | x)} \ln p(x | z) - KL(q(z | x) \Vert N(0, I))

        (Kingma and Welling 2014, eq. 3). The divergence is exact and the bound the mean of the log-weights of
        `score_samples`, whose noise vanishes where the posterior is exact; the first term is what they leave.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data to score.
        n_draws : int, default=100
            Draws for each row.

        Returns
        -------
        bound, reconstruction, divergence : ndarrays of shape (n_samples,), float64
            In nats, in the units of X; ``bound = reconstruction - divergence``.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X is not valid.
        """
        X = self._validate(X)
        bound = self._bound(X, n_draws, lambda log_weights: log_weights.mean(0))
        divergence = self._map(X, lambda x: standard_normal_kl(*self._posterior(x)[1:]), None)
        return bound, bound + divergence, divergence

    def score(self, X, y=None):
        """Mean over rows of `score_samples`: a bound on the log-likelihood, in nats; higher is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data to score.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        score : float
            Comparable with the `score` of PCA and FactorAnalysis on the same X.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X is not valid.
        """
        return float(np.mean(self.score_samples(X)))

    def sample(self, n_samples=1, random_state=None):
        """Draw new rows: codes from the prior, then rows from the likelihood.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Decides the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features_in_), float64
            New rows, in the units of X, with the noise of the likelihood; zeros and ones for "bernoulli". For rows
            without noise, use ``inverse_transform`` of standard normal codes.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If n_samples is not a positive integer.
        """
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples must be an integer of at least 1, got {n_samples!r}.")
        rng = check_random_state(random_state)
        mean = self.inverse_transform(rng.standard_normal((int(n_samples), self.n_components_)))
        if self.module_.probabilities:
            return (rng.random_sample(mean.shape) < mean).astype(np.float64)
        return mean + math.sqrt(self.noise_variance_) * rng.standard_normal(mean.shape)

    def _posterior(self, x):
        """Standardized x, and mean and log-variance of its posterior."""
        x = (x - self._tensor(self.mean_, x)) / self.scale_
        return x, *self.module_.posterior(x)

    def _bound(self, X, n_draws, combine):
        """Combine the log-weights, shape (n_draws, n_rows), into a value for each row of a valid X."""
        if not isinstance(n_draws, Integral) or n_draws < 1:
            raise ValueError(f"n_draws must be an integer of at least 1, got {n_draws!r}.")
        noise = _standard_normal_draws(n_draws, self.n_components_)
        # the density of X is that of X / scale_, divided by scale_ for every feature
        change_of_scale = X.shape[1] * math.log(self.scale_) if not self.module_.probabilities else 0.0

        def log_weights(x):
            x, mean, log_var = self._posterior(x)
            weights = []
            for draws in self._tensor(noise, x).split(max(1, DRAWS_AT_ONCE // len(x))):
                z = mean + (0.5 * log_var).exp() * draws[:, None]
                prior = normal_log_density(z, torch.zeros_like(mean), torch.zeros_like(mean))
                weights.append(self._log_likelihood(self.module_, x, z) + prior - normal_log_density(z, mean, log_var))
            return combine(torch.cat(weights)) - change_of_scale

        return self._map(X, log_weights, None)


def _standard_normal_draws(n_draws, n_components):
    """Scrambled Sobol points as normal draws: each is N(0, I), together they average better than independent ones."""
    uniform = torch.quasirandom.SobolEngine(n_components, scramble=True, seed=0).draw(n_draws, dtype=torch.float64)
    least = 2.0**-31  # the points are multiples of 2^-30
    return torch.special.ndtri(uniform.clamp(least, 1 - least)).numpy()
