"""AdversarialAutoEncoder: codes that an adversary cannot tell from draws of the prior."""

from numbers import Real
from typing import Any

import torch
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ._adam import adam
from ._base import BaseAutoEncoder
from ._declaration import parameter
from ._fitted import checked_draws
from ._layers import map_inputs, perceptron
from ._losses import fake_loss, real_loss, squared_error
from ._networks import AutoEncoderModule

# Of Adam, for both losses.
BETAS = (0.5, 0.9)


class AdversarialAutoEncoder(BaseAutoEncoder):
    r"""Adversarial autoencoder.

    A discriminator D learns to tell codes f(x) from draws of the prior N(0, I), while the encoder learns to deceive it
    and, with the decoder g, to reconstruct rows: the distribution of the codes becomes the prior [1]_. On each batch
    encoder and decoder take a step down

    .. math:: \ell(x) = \lVert x - g(f(x)) \rVert^2 - \lambda d \ln \sigma(D(f(x)))

    with d the number of features, and the discriminator down :math:`-\ln \sigma(D(z)) - \ln (1 - \sigma(D(f(x))))` with
    :math:`z \sim N(0, I)`: the non-saturating losses of a GAN [2]_. ``transform`` returns f(x), in the units of the
    prior; ``sample`` decodes draws of it.

    Parameters
    ----------
    adversary_weight : float, default=0.3
        Weight :math:`\lambda` of deceiving the discriminator, as a share of the variance of rows divided by `scale_`.
        With 0.3 the codes of most data differ from draws of the prior by no more than two sets of draws do, at a cost
        of a few hundredths of R2. With 0 the prior has no influence on the codes.

    init : {"pca", "random"}, default="pca"
        Initialization: "pca" at the principal axes of all rows of X, with codes of unit variance, "random" with random
        weights. One network is trained; there is no fallback.

    Attributes
    ----------
    best_iter_ : int
        Epoch whose weights are kept: the last one with finite losses.

    validation_curve_ : None
        There are no validation rows.

    best_loss_ : float
        Mean loss of a training row at the weights that are kept.

    See Also
    --------
    VAE : Codes near the prior by a divergence of each row, and a likelihood; one loss.

    Notes
    -----
    The two losses step in turn, and neither tells which epoch is the best. So all rows train, the last weights are
    kept, and there is no early stopping. With many columns and few rows this overfits: lower `max_iter`. The
    discriminator has the hidden layers of the encoder, or (128, 64) if that has none. The optimizers have the momentum
    0.5 that GANs are trained with [3]_.

    References
    ----------
    .. [1] Makhzani, Shlens, Jaitly, Goodfellow, Frey (2016), "Adversarial Autoencoders", section 2. arXiv:1511.05644
    .. [2] Goodfellow, Pouget-Abadie, Mirza et al. (2014), "Generative Adversarial Networks", eq. 1 and section 3.
       arXiv:1406.2661
    .. [3] Radford, Metz, Chintala (2016), "Unsupervised Representation Learning with Deep Convolutional Generative
       Adversarial Networks", section 4. arXiv:1511.06434

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AdversarialAutoEncoder
    >>> X = load_digits().data / 16
    >>> model = AdversarialAutoEncoder(8, max_iter=2, random_state=0).fit(X)
    >>> model.transform(X).shape, model.sample(3, random_state=0).shape
    ((1797, 8), (3, 64))
    """

    adversary_weight: float = parameter(Interval(Real, 0, None, closed="left"), default=0.3)
    # not parameters here: alternating losses cannot choose an epoch, and the last one is kept
    early_stopping = False
    cv = "auto"
    validation_fraction = n_iter_no_change = tol = None

    def _loss(self, module, x):
        z = module.encode(x)
        weight = self.adversary_weight * x.shape[1]
        return squared_error(x, module.decode(z)) + weight * real_loss(module.adversary(z))

    def _adversary_loss(self, module, x):
        with torch.no_grad():
            z = module.encode(x)
        return real_loss(module.adversary(torch.randn_like(z))) + fake_loss(module.adversary(z))

    def _optimizers(self, module):
        autoencoder = nn.ModuleList([module.encoder, module.decoder])
        return [
            (self._loss, adam(autoencoder, self.alpha, BETAS)),
            (self._adversary_loss, adam(module.adversary, self.alpha, BETAS)),
        ]

    def _build_module(self, n_features, n_components, scale, **options):
        return AdversarialModule(n_features, n_components, self._hidden_layer_sizes(), self.activation, **options)

    def sample(self, n_samples: int = 1, random_state=None) -> Any:
        """Draw new rows: decoded draws of the prior.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Determines the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features_in_), float64
            New rows, in the units of X.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If n_samples is not a positive integer.
        """
        check_is_fitted(self)
        n_samples, rng = checked_draws(n_samples, random_state)
        return self.inverse_transform(rng.standard_normal((n_samples, self.n_components_)))


class AdversarialModule(AutoEncoderModule):
    """An autoencoder, whose codes have the units of the prior, and the discriminator of these codes."""

    code_map = "orthogonal"  # what is N(0, I) remains so

    def __init__(self, n_features, n_components, hidden_layer_sizes, activation, **options):
        super().__init__(n_features, n_components, hidden_layer_sizes, activation, **options)
        self.code_scale = None
        sizes = hidden_layer_sizes or (128, 64)  # a linear discriminator would see nothing but means
        self.adversary = perceptron((n_components, *sizes, 1), activation)

    def map_code(self, matrix, inverse, shift):
        super().map_code(matrix, inverse, shift)
        map_inputs(self.adversary[0], inverse, shift)
