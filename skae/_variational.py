"""VAE: the variational autoencoder, with a normal prior or a learned one."""

from numbers import Real

from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions

from ._base_vae import BaseVAE
from ._declaration import parameter
from ._losses import free_bits_kl, reparameterize, standard_normal_kl, standard_normal_log_density
from ._priors import FlowPrior, VampPrior


class VAE(BaseVAE):
    r"""Variational autoencoder.

    Codes z have the prior p(z), by default N(0, I), rows the likelihood p(x | z) of the decoder, and the encoder gives
    the posterior q(z | x), normal with diagonal covariance. Together they minimize the mean over rows of

    .. math:: \ell(x) = -E_{q(z | x)} \ln p(x | z) + \beta \, KL(q(z | x) \Vert p(z))

    with one reparameterized draw of z and the divergence from N(0, I) in closed form [1]_; for beta = 1 this is minus
    the evidence lower bound on ln p(x). ``transform`` returns the posterior mean, which is deterministic. Without
    hidden layers the Gaussian model is probabilistic PCA, which also initializes the model with hidden layers [2]_.

    Parameters
    ----------
    prior : {"normal", "vamp", "flow"}, default="normal"
        Distribution of the codes: N(0, I); a mixture of the posteriors of 100 pseudo-inputs [3]_, which are initialized
        at rows of X and learned; or a normalizing flow, a neural spline flow [4]_ of the package zuko (extra "flow"),
        initialized as the identity. The divergence is then :math:`KL(q \Vert N(0, I)) + E_q [\ln N(z; 0, I) - \ln
        p(z)]`, the expectation by the same draw. For codes in clusters or on curves they raise the likelihood and
        improve samples: "vamp" at twice the cost, "flow" at four times. With "vamp" the initialization is no longer
        probabilistic PCA, and with a few hundred rows the result can be worse than with "normal".

    free_bits : float, default=0.0
        Minimum KL per dimension :math:`\lambda`, in nats [5]_: the divergence is :math:`\sum_j \max(\lambda, KL_j)`,
        with means over a batch. It prevents the posterior collapse of single components; for the prior "normal" only.

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
    .. [3] Tomczak and Welling (2018), "VAE with a VampPrior", eq. 9. arXiv:1705.07120
    .. [4] Durkan, Bekasov, Murray, Papamakarios (2019), "Neural Spline Flows". arXiv:1906.04032
    .. [5] Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling (2016), "Improving Variational Inference with Inverse
       Autoregressive Flow", eq. 15. arXiv:1606.04934

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import VAE
    >>> X = load_digits().data / 16
    >>> vae = VAE(n_components=4, likelihood="bernoulli", max_iter=2, random_state=0).fit(X)
    >>> vae.transform(X).shape, vae.sample(3, random_state=0).shape, vae.score_samples(X[:5]).shape
    ((1797, 4), (3, 64), (5,))
    """

    prior: str = parameter(StrOptions({"normal", "vamp", "flow"}), default="normal", defines_network=True)
    free_bits: float = parameter(Interval(Real, 0, None, closed="left"), default=0.0)

    def _loss(self, module, x):
        posterior = module.posterior(x)
        if self._n_draws(module) > 1:
            return -self._importance_weighted_bound(module, x, posterior)
        z = reparameterize(*posterior)
        log_likelihood = self._log_likelihood(module, x, z)
        if self.free_bits:
            divergence = free_bits_kl(*posterior[:2], self.free_bits, *posterior[2:])
        else:
            divergence = standard_normal_kl(*posterior)
        if self.prior != "normal":
            divergence = divergence + standard_normal_log_density(z) - module.prior.log_density(module, z)
        return -log_likelihood + self.beta * divergence

    def _build_module(self, n_features, n_components, scale, **options):
        module = super()._build_module(n_features, n_components, scale, **options)
        if self.prior == "vamp":
            module.prior = VampPrior(n_features)
        elif self.prior == "flow":
            module.prior = FlowPrior(n_components)
        return module

    def _check_parameters(self):
        super()._check_parameters()
        if self.free_bits and self.prior != "normal":
            raise InvalidParameterError(
                f"free_bits needs the divergence of single components, which prior={self.prior!r} does not have. Use "
                "prior='normal' or free_bits=0."
            )
