"""AdversarialAutoEncoder: codes that an adversary cannot tell from draws of the prior."""

from numbers import Real

import torch
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ._base import BaseAutoEncoder, checked_draws
from ._losses import fake_loss, real_loss, squared_error
from ._networks import perceptron
from ._training import adam, play

# Of Adam, for both players.
BETAS = (0.5, 0.9)


class AdversarialAutoEncoder(BaseAutoEncoder):
    r"""Adversarial autoencoder.

    A discriminator D learns to tell codes f(x) from draws of the prior N(0, I), while the encoder learns to deceive it
    and, with the decoder g, to rebuild rows: the codes of all rows together become draws of the prior [1]_. On each
    batch encoder and decoder step down

    .. math:: \ell(x) = \lVert x - g(f(x)) \rVert^2 - \lambda d \ln \sigma(D(f(x)))

    with d the number of features, and the discriminator down :math:`-\ln \sigma(D(z)) - \ln (1 - \sigma(D(f(x))))` with
    :math:`z \sim N(0, I)`: the losses of a GAN [2]_, of the kind that does not saturate. ``transform`` returns f(x), in
    the units of the prior; ``sample`` decodes draws of it.

    Parameters
    ----------
    n_components : int or float, default=2
        Number of components of the code. A float in (0, 1) takes the fewest for which PCA explains more than this share
        of the variance. It may exceed the number of features or rows: PCA then reconstructs the training rows exactly,
        the components beyond their rank start at zero, and any use that training finds for them must pay on held-out
        rows.

    adversary_weight : float, default=0.3
        Weight :math:`\lambda` of deceiving the discriminator, as a share of the variance of rows divided by `scale_`.
        0.3 brings the codes of most data within what two draws of the prior differ by, for a few hundredths of R2; 0
        leaves the codes as they like.

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
        Mean of each feature, subtracted before encoding.

    scale_ : float
        Root mean square deviation over all features, by which X is divided: one number, so that PCA stays PCA.

    n_samples_ : int
        Number of rows in the training data.

    n_features_in_ : int
        Number of features seen during `fit`.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features seen during `fit`, if they are all strings.

    See Also
    --------
    VAE : Codes near the prior by a divergence of each row, and a likelihood; no game.

    Notes
    -----
    The linear floor has no meaning here: codes as PCA gives them have the mean and the variances of the prior, nothing
    more, and a game has no loss by which a better start or epoch could be told. So training starts at PCA (at random
    weights with ``init="random"``), takes all rows and keeps the last weights: `early_stopping`,
    `validation_fraction`, `n_iter_no_change` and `tol` have no effect. Where columns are many and rows few that learns
    rows by heart: lower `max_iter`. The discriminator has the hidden layers of the encoder, or (128, 64) if that has
    none. The optimizers have the momentum 0.5 that
    GANs are trained with [3]_.

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

    _of_training = BaseAutoEncoder._of_training | {"adversary_weight"}

    _parameter_constraints: dict = {
        **BaseAutoEncoder._parameter_constraints,
        "adversary_weight": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_components=2,
        *,
        adversary_weight=0.3,
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
        self.adversary_weight = adversary_weight

    def _loss(self, module, x):
        z = module.encode(x)
        weight = self.adversary_weight * x.shape[1]
        return squared_error(x, module.decode(z)) + weight * real_loss(module.adversary(z))

    def _adversary_loss(self, module, x):
        with torch.no_grad():
            z = module.encode(x)
        return real_loss(module.adversary(torch.randn_like(z))) + fake_loss(module.adversary(z))

    def _players(self, module):
        autoencoder = nn.ModuleList([module.encoder, module.decoder])
        return [
            (self._loss, adam(autoencoder, self.alpha, BETAS)),
            (self._adversary_loss, adam(module.adversary, self.alpha, BETAS)),
        ]

    def _build_module(self, n_features, n_components, scale):
        module = super()._build_module(n_features, n_components, scale)
        sizes = self._hidden_layer_sizes() or (128, 64)  # a linear discriminator would see nothing but means
        module.adversary = perceptron((n_components, *sizes, 1), self.activation)
        return module

    # A game from one start, played to its end with all rows.

    def _descent(self, module, x, rows, watched, **options):
        return play(self._loss, self._players(module), module, x, rows, watched, **options)

    def _new_starts(self, x, scale, seed):
        return super()._new_starts(x, scale, seed)[:1]

    def _beats_pca(self, run, floor, x, rows, watched):
        return True

    def _n_held_out(self, n_rows):
        return 0

    def _code_unit(self):
        return 1.0  # that of the prior

    def sample(self, n_samples=1, random_state=None):
        """Draw new rows: decoded draws of the prior.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Decides the draws.

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
