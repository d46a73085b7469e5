"""VAE: the variational autoencoder, with a normal prior or a learned one."""

import math
from numbers import Real

import torch
from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions
from torch import nn

from ._base_vae import BaseVAE
from ._losses import free_bits_kl, normal_log_density, standard_normal_kl, standard_normal_log_density
from ._training import reproducible

N_PSEUDO_INPUTS = 100
N_TRANSFORMS = 2


class VAE(BaseVAE):
    r"""Variational autoencoder.

    Codes z have the prior p(z), by default N(0, I), rows the likelihood p(x | z) of the decoder, and the encoder gives
    the posterior q(z | x), normal with diagonal covariance. Together they minimize the mean over rows of

    .. math:: \ell(x) = -E_{q(z | x)} \ln p(x | z) + \beta \, KL(q(z | x) \Vert p(z))

    with one reparameterized draw of z and the divergence from N(0, I) in closed form [1]_; for beta = 1 this is minus
    the evidence lower bound on ln p(x). ``transform`` returns the posterior mean, which is deterministic. Without
    hidden layers the Gaussian model is probabilistic PCA, from where training starts [2]_.

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

    prior : {"normal", "vamp", "flow"}, default="normal"
        Distribution of the codes: N(0, I); a mixture of the posteriors of 100 pseudo-inputs [5]_, which start at rows
        of X and are learned; or a normalizing flow, a neural spline flow of the package zuko (``pip install
        skae[flow]``), learned from the identity. The divergence is then :math:`KL(q \Vert N(0, I)) + E_q [\ln N(z; 0,
        I) - \ln p(z)]`, the expectation by the same draw. Where codes are clustered or bent they raise the likelihood
        and better samples: "vamp" at twice the cost, "flow" at four times. With "vamp" the start is no longer
        probabilistic PCA, and on a few hundred rows it can end below "normal".

    free_bits : float, default=0.0
        Nats of divergence that each component has for nothing, in the mean over a batch [6]_: :math:`\sum_j
        \max(\lambda, KL_j)`. It keeps components in use that would collapse to the prior; for the prior "normal"
        only.

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
    active_units_ : ndarray of shape (n_components_,), bool
        Components whose posterior mean varies over the rows of `fit`, or of the last `partial_fit` with ten or more: by
        more than 0.01, as in [4]_. A warning tells if there is none.

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
    .. [4] Burda, Grosse, Salakhutdinov (2016), "Importance Weighted Autoencoders", eq. 8 and section 5.2.
       arXiv:1509.00519
    .. [5] Tomczak and Welling (2018), "VAE with a VampPrior", eq. 9. arXiv:1705.07120
    .. [6] Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling (2016), "Improving Variational Inference with Inverse
       Autoregressive Flow", eq. 15. arXiv:1606.04934
    .. [7] Durkan, Bekasov, Murray, Papamakarios (2019), "Neural Spline Flows". arXiv:1906.04032

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import VAE
    >>> X = load_digits().data / 16
    >>> vae = VAE(n_components=4, likelihood="bernoulli", max_iter=2, random_state=0).fit(X)
    >>> vae.transform(X).shape, vae.sample(3, random_state=0).shape, vae.score_samples(X[:5]).shape
    ((1797, 4), (3, 64), (5,))
    """

    _of_training = BaseVAE._of_training | {"free_bits"}

    _parameter_constraints: dict = {
        **BaseVAE._parameter_constraints,
        "prior": [StrOptions({"normal", "vamp", "flow"})],
        "free_bits": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_components=2,
        *,
        likelihood="gaussian",
        noise_variance=None,
        prior="normal",
        free_bits=0.0,
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
        self.prior = prior
        self.free_bits = free_bits
        self.beta = beta

    def _divergence(self, module, mean, log_var, z):
        if self.free_bits:
            return free_bits_kl(mean, log_var, self.free_bits)
        divergence = standard_normal_kl(mean, log_var)
        if self.prior == "normal":
            return divergence
        return divergence + standard_normal_log_density(z) - self._log_prior(module, z)

    def _log_prior(self, module, z):
        return module.prior.log_density(module, z) if module.prior else standard_normal_log_density(z)

    def _draw_codes(self, n_samples, rng):
        noise = super()._draw_codes(n_samples, rng)
        if not self.module_.prior:
            return noise
        with torch.inference_mode():
            noise = torch.as_tensor(noise).to(next(self.module_.parameters()))
            return self.module_.prior.draw(self.module_, noise, rng).numpy(force=True)

    def _build_module(self, n_features, n_components, scale):
        module = super()._build_module(n_features, n_components, scale)
        module.prior = None
        if self.prior == "vamp":
            module.prior = VampPrior(n_features)
        elif self.prior == "flow":
            module.prior = FlowPrior(n_components)
        return module

    def _start_at_rows(self, module, x, rows):
        if self.prior == "vamp":
            chosen = rows[torch.randint(len(rows), (N_PSEUDO_INPUTS,)).to(rows)]
            module.prior.rows.copy_(x[chosen])

    def _check_parameters(self):
        super()._check_parameters()
        if self.free_bits and self.prior != "normal":
            raise InvalidParameterError(
                f"free_bits needs the divergence of single components, which prior={self.prior!r} does not have. Use "
                "prior='normal' or free_bits=0."
            )


class VampPrior(nn.Module):
    """Mixture of the posteriors of pseudo-inputs: rows of the data and what is learned to be added to them."""

    def __init__(self, n_features):
        super().__init__()
        self.register_buffer("rows", torch.zeros(N_PSEUDO_INPUTS, n_features))
        self.shift = nn.Parameter(torch.zeros(N_PSEUDO_INPUTS, n_features))

    def log_density(self, module, z):
        mean, log_var = module.posterior(self.rows + self.shift)
        return normal_log_density(z[..., None, :], mean, log_var).logsumexp(-1) - math.log(N_PSEUDO_INPUTS)

    def draw(self, module, noise, rng):
        mean, log_var = module.posterior(self.rows + self.shift)
        which = torch.as_tensor(rng.randint(N_PSEUDO_INPUTS, size=len(noise)), device=noise.device)
        return mean[which] + (0.5 * log_var[which]).exp() * noise


class FlowPrior(nn.Module):
    """An invertible map f with N(f(z); 0, I) |det f'(z)| as the density of z; at the start the identity."""

    def __init__(self, n_components):
        super().__init__()
        try:
            from zuko.flows import NSF
        except ImportError as error:
            raise ImportError("prior='flow' needs the package zuko: pip install 'skae[flow]'.") from error
        # zuko computes its masks, which the device "meta" of an unpickled estimator cannot
        with torch.device("cpu"), reproducible(0, torch.device("cpu")):
            self.flow = NSF(n_components, transforms=N_TRANSFORMS, hidden_features=(64, 64))
        for transform in self.flow.transform.transforms:
            last = transform.hyper[-1] if n_components > 1 else transform  # of one component no other is a context
            for weights in last.parameters():
                nn.init.zeros_(weights)

    def log_density(self, module, z):
        noise, log_determinant = self.flow.transform().call_and_ladj(z)
        return standard_normal_log_density(noise) + log_determinant

    def draw(self, module, noise, rng):
        return self.flow.transform().inv(noise)
