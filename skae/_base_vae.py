"""What variational autoencoders share: the bound, its draws, the log-likelihood, samples."""

import math
import warnings
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions
from sklearn.utils.validation import check_is_fitted

from ._base import BaseAutoEncoder
from ._declaration import parameter
from ._distributed import moments, several, total
from ._fitted import checked_draws
from ._imputation import Imputes, standard_normal_draws
from ._losses import (
    bernoulli_log_likelihood,
    categorical_log_likelihood,
    gaussian_log_likelihood,
    normal_log_density,
    reparameterize,
    standard_normal_kl,
    standard_normal_log_density,
    with_noise,
)
from ._mapped import some_rows
from ._networks import VariationalModule
from ._priors import NormalPrior
from ._rows import NUMBERS_AT_ONCE, TableRows, at_least_one, checked_weights
from ._scaling import Scaler

# Rows times draws that pass through the decoder together, fewer where rows are wide: for speed and memory only.
DRAWS_AT_ONCE = 4096
# A component whose posterior mean varies less than this over the rows of the fit is not used (Burda et al. 2016).
LEAST_VARIANCE = 0.01
# Fewer rows than this do not tell whether it varies.
ROWS_TO_JUDGE = 10
# Draws in the bound of rows in which cells are missing: of numbers, and of tables with categories, where more gained
# nothing.
DRAWS_OF_NUMBERS, DRAWS_OF_TABLES = 10, 5


class BaseVAE(Imputes, BaseAutoEncoder):
    r"""Base of the members with a posterior, a likelihood and a bound.

    Parameters
    ----------
    likelihood : {"gaussian", "bernoulli"}, default="gaussian"
        Distribution of a row given its code: normal with one variance for all features, or, for X in [0, 1],
        independent Bernoulli variables whose probabilities the decoder gives. In a table with categories, "gaussian"
        is for its numbers: each has a variance of its own, and each category and boolean has the probabilities of its
        values. `categorical_features` chooses otherwise: a number named there is a category, a boolean left out is a
        number.

    noise_variance : float or None, default=None
        Variance of the Gaussian likelihood, in squared units of X. None learns it with the rest.

    beta : float, default=1.0
        Weight of the divergence (Higgins et al. 2017, "beta-VAE", ICLR, eq. 4). A larger weight makes the distribution
        of the codes more like the prior and the reconstruction less exact.

    n_draws : int or "auto", default="auto"
        Draws of the code of each row in the bound that is maximized. One gives the evidence lower bound with its
        divergence in closed form; K give :math:`\ln \frac{1}{K} \sum_k p(x, z_k) / q(z_k | x)` (Burda et al. 2016,
        eq. 8), which is tighter and passes K times through the decoder; it needs ``beta=1``. "auto" is 10 if cells of X
        are missing, 5 if it has categories too, as a posterior given few cells is wide (Mattei and Frellsen 2019,
        "MIWAE", ICML, eq. 4 to 6), and otherwise one.

    Attributes
    ----------
    active_units_ : ndarray of shape (n_components_,), bool
        Components whose posterior mean has a variance above 0.01 over the rows of `fit`, or of those that the last
        `partial_fit` with ten rows or more passed over (Burda et al. 2016, "Importance Weighted Autoencoders", section
        5.2). A warning says if there is none.

    noise_variance_ : float or ndarray of shape (n_features_in_,)
        Variance of the Gaussian likelihood, in squared units of X; not for "bernoulli". If X has missing cells or
        categories, that of each column, NaN for categories.
    """

    likelihood: str = parameter(StrOptions({"gaussian", "bernoulli"}), default="gaussian", defines_network=True)
    noise_variance: float | None = parameter(
        None, Interval(Real, 0, None, closed="neither"), default=None, defines_network=True
    )
    beta: float = parameter(Interval(Real, 0, None, closed="left"), default=1.0)
    n_draws: int | str = parameter(StrOptions({"auto"}), Interval(Integral, 1, None, closed="left"), default="auto")

    def _loss(self, module, x):
        posterior = module.posterior(x)
        if self._n_draws(module) > 1:
            return -self._importance_weighted_bound(module, x, posterior)
        z = reparameterize(*posterior)
        return -self._log_likelihood(module, x, z) + self.beta * standard_normal_kl(*posterior)

    def _n_draws(self, module):
        if self.n_draws != "auto":
            return self.n_draws
        if not getattr(module, "fills", False) or self.beta != 1 or getattr(self, "free_bits", 0):
            return 1
        return DRAWS_OF_TABLES if module.has_categories else DRAWS_OF_NUMBERS

    def _importance_weighted_bound(self, module, x, posterior):
        mean = posterior[0]
        noise = torch.randn(self._n_draws(module), *mean.shape, device=mean.device)
        z = with_noise(noise.to(mean), *posterior)
        return self._log_weights(module, x, posterior, z).logsumexp(0) - math.log(len(z))

    def _log_weights(self, module, x, posterior, z, y=None):
        """Logarithm of p(x, z) / q(z | x) for draws z, (n_draws, batch, n_components); y: the decoder's outputs."""
        log_joint = self._log_likelihood(module, x, z, y) + module.prior.log_density(module, z)
        return log_joint - normal_log_density(z, *posterior)

    def _log_likelihood(self, module, x, z, y=None):
        y = module.outputs(module.with_condition(z, x)) if y is None else y
        x = module.modelled(x)
        if module.probabilities:
            return bernoulli_log_likelihood(x, y)
        if module.has_categories:
            numbers = module.numbers
            log_density = gaussian_log_likelihood(x[..., numbers], y[..., numbers], module.log_noise[numbers])
            return log_density + categorical_log_likelihood(x, y, module.members)
        return gaussian_log_likelihood(x, y, module.log_noise)

    def _build_module(self, n_features, n_components, scale, module=VariationalModule, **options):
        module = module(
            n_features,
            n_components,
            self._hidden_layer_sizes(),
            self.activation,
            probabilities=self.likelihood == "bernoulli",
            noise_variance=None if self.noise_variance is None else self.noise_variance / scale**2,
            beta=self.beta,
            **options,
        )
        module.prior = NormalPrior()
        return module

    def _check_parameters(self):
        super()._check_parameters()
        if self.n_draws not in ("auto", 1) and (self.beta != 1 or getattr(self, "free_bits", 0)):
            raise InvalidParameterError(
                f"n_draws={self.n_draws} maximizes a bound without a divergence that beta or free_bits could change. "
                "Use beta=1 and free_bits=0, or n_draws=1."
            )

    def _build_scaler(self):
        return Scaler(probabilities=self.likelihood == "bernoulli")

    def _after_fit(self, X, sample_weight):
        X = some_rows(X)
        n_rows = total(X.shape[0])
        if n_rows < ROWS_TO_JUDGE and hasattr(self, "active_units_") and len(self.active_units_) == self.n_components_:
            return
        codes = self._map(X, self._encode, self.n_components_)
        mean = np.average(codes, axis=0, weights=sample_weight)
        variances = np.average(np.square(codes - mean), axis=0, weights=sample_weight)
        if several():
            count = len(codes) if sample_weight is None else sample_weight.sum()
            _, squares, n_counted = moments(torch.from_numpy(mean), torch.from_numpy(variances * count), count)
            variances = squares.numpy() / n_counted
        self.active_units_ = variances > LEAST_VARIANCE
        if not self.active_units_.any() and n_rows >= ROWS_TO_JUDGE and _varies(X):
            warnings.warn(
                f"The posterior of {type(self).__name__} has collapsed to the prior: codes carry no information. To "
                "prevent it, lower beta or noise_variance.",
                ConvergenceWarning,
                stacklevel=4,
            )

    @property
    def noise_variance_(self) -> float | np.ndarray:
        check_is_fitted(self)
        if self.module_.probabilities:
            raise AttributeError("Only the Gaussian likelihood has a noise variance.")
        noise = self.module_.log_noise.detach().exp().numpy(force=True)
        if not noise.ndim:
            return float(noise) * self.scale_**2
        first = np.cumsum((0, *self.module_.columns.sizes[:-1]))
        return noise[first] * self._scaler_.column_scales() ** 2

    def score_samples(self, X, n_draws: int = 100) -> np.ndarray:
        r"""Importance-weighted bound on the log-likelihood of each row.

        .. math:: \ln \frac{1}{K} \sum_{k=1}^K \frac{p(x | z_k) p(z_k)}{q(z_k | x)}, \quad z_k \sim q(z | x)

        (Burda et al. 2016, eq. 8). It rises towards ln p(x) with the number of draws K. The z_k of all rows come from
        the same scrambled Sobol sequence with a constant seed: the bound is deterministic, and that of a row does not
        depend on the other rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
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

    def elbo(self, X, n_draws: int = 100) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        r"""Evidence lower bound of each row and its two terms.

        .. math:: E_{q(z | x)} \ln p(x | z) - KL(q(z | x) \Vert p(z))

        with the prior p(z) of the member (Kingma and Welling 2014, eq. 3). The divergence from the standard normal
        prior is exact; for a learned prior its difference from that is estimated by the draws. The bound is the mean
        of the log-weights of `score_samples`, which has no noise if the posterior is exact. The first term is the bound
        plus the divergence.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
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
        divergence = self._map(X, lambda x: standard_normal_kl(*self._posterior(x)[1]), None)

        def difference(x, posterior, z):
            return standard_normal_log_density(z) - self.module_.prior.log_density(self.module_, z)

        divergence += self._over_draws(X, n_draws, difference, lambda values: values.mean(0))
        return bound, bound + divergence, divergence

    def score(self, X, y=None, sample_weight=None) -> float:
        """Mean over rows of `score_samples`: a bound on the log-likelihood, in nats; higher is better.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data to score.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            How much each row counts in the mean. None is one for each.

        Returns
        -------
        score : float
            Comparable with the `score` of PCA and FactorAnalysis on the same X.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X or sample_weight is not valid.
        """
        scores = self.score_samples(X)
        return float(np.average(scores, weights=checked_weights(sample_weight, scores)))

    def sample(self, n_samples: int = 1, random_state=None) -> Any:
        """Draw new rows: codes from the prior, then rows from the likelihood.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Determines the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features_in_), float64
            New rows, in the units of X, with the noise of the likelihood; zeros and ones for "bernoulli". For rows
            without that noise, with the standard normal prior, use ``inverse_transform`` of standard normal codes.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If n_samples is not a positive integer.
        """
        check_is_fitted(self)
        n_samples, rng = checked_draws(n_samples, random_state)
        codes = self._draw_codes(n_samples, rng)
        return self._scaler_.table(self._drawn_rows(codes, rng))

    def _drawn_rows(self, codes, rng):
        """Rows from the likelihood given codes, and perhaps a condition beside them: codes of categories, numbers."""
        if self.module_.columns is not None:
            return self._map(codes, partial(self._draw_rows, rng), self.n_features_in_)
        return self._add_noise(self._map(codes, self._decode, self.n_features_in_), rng)

    def _draw_rows(self, rng, z):
        shape = len(z), len(self.mean_)
        normal, uniform = (
            torch.as_tensor(draws).to(z) for draws in (rng.standard_normal(shape), rng.random_sample(shape))
        )
        return self._scaler_.inverse_transform(self.module_.drawn(z, normal, uniform))

    def _draw_codes(self, n_samples, rng):
        """Codes from the prior, shape (n_samples, n_components_)."""
        noise, module = rng.standard_normal((n_samples, self.n_components_)), self.module_
        with torch.inference_mode():
            noise = torch.as_tensor(noise).to(next(module.parameters()))
            return module.prior.draw(module, noise, rng).numpy(force=True)

    def _add_noise(self, mean, rng):
        """Rows from the likelihood, given its means."""
        if self.module_.probabilities:
            return (rng.random_sample(mean.shape) < mean).astype(np.float64)
        return mean + math.sqrt(self.noise_variance_) * rng.standard_normal(mean.shape)

    def _posterior(self, x):
        """Scaled x, and its posterior: mean, log-variance and perhaps a factor."""
        x = self._scaler_.transform(x)
        observed = self._observed(x)
        return x if observed is x else TableRows.of(x), self.module_.posterior(observed)

    def _bound(self, X, n_draws, combine):
        """Combine the log-weights, shape (n_draws, n_rows), into a value for each row of a valid X."""

        def log_weights(x, posterior, z):
            return self._log_weights(self.module_, x, posterior, z)

        bound = self._over_draws(X, n_draws, log_weights, combine)
        return bound if self.module_.probabilities else bound - self._scaler_.log_scale(X)

    def _over_draws(self, X, n_draws, function, combine):
        """Combine what a function of (x, posterior, z) gives for draws z of the posterior of each row."""
        noise = standard_normal_draws(at_least_one(n_draws=n_draws), self.n_components_)
        # of each draw of a code: what the decoder gives, or its distances from the parts of the prior
        width = max(len(self.mean_), self.module_.prior.n_parts * self.n_components_)
        at_once = min(DRAWS_AT_ONCE, NUMBERS_AT_ONCE // width)

        def combined(x):
            x, posterior = self._posterior(x)
            values = []
            for draws in torch.as_tensor(noise).to(x).split(max(1, at_once // len(x))):
                z = with_noise(draws[:, None].expand(-1, *posterior[0].shape), *posterior)
                values.append(function(x, posterior, z))
            return combine(torch.cat(values))

        return self._map(X, combined, None, width)


def _varies(X):
    """Whether the rows of a dense or sparse array differ."""
    ranges = X.max(axis=0) - X.min(axis=0)
    return bool(ranges.count_nonzero() if sparse.issparse(ranges) else ranges.any())
