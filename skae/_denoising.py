"""DenoisingAutoEncoder: reconstructs clean rows from noisy ones."""

from numbers import Real

import torch
from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions

from ._base import BaseAutoEncoder
from ._losses import squared_error


class DenoisingAutoEncoder(BaseAutoEncoder):
    r"""Denoising autoencoder.

    Encoder f and decoder g minimize the mean over rows of

    .. math:: \ell(x) = \lVert x - g(f(\tilde x)) \rVert^2, \quad \tilde x \sim q(\tilde x | x)

    summed over features, where the noise q is drawn afresh for every batch and the target is the clean row [1]_.
    ``transform`` returns f(x), in the units of X, and adds no noise. Both start as PCA.

    Parameters
    ----------
    n_components : int or float, default=2
        Number of components of the code. A float in (0, 1) takes the fewest for which PCA explains more than this share
        of the variance. It may exceed the number of features or rows: PCA then reconstructs the training rows exactly,
        the components beyond their rank start at zero, and any use that training finds for them must pay on held-out
        rows.

    noise : {"gaussian", "masking", "salt_and_pepper", "swap"}, default="gaussian"
        What is done to each entry of a row. "gaussian" adds a normal draw; the others, with probability `noise_level`,
        replace the entry by the column's mean ("masking"), by the column's least or greatest value in the batch, evenly
        ("salt_and_pepper"), or by the same column's value in another row of the batch ("swap", for tables: the noisy
        entry is as likely as any).

    noise_level : float, default=0.1
        Standard deviation of "gaussian" noise, as a share of `scale_`; otherwise a probability, at most 1.

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
    AutoEncoder : The same network without noise.
    VAE : Gives a density, and draws new rows.

    Notes
    -----
    Standardize the columns of a table first, as for PCA; divide pictures by their maximum. The loss, and so the choice
    of the best epoch, is that of denoising; the score is the R2 of reconstructing rows as they are given.

    References
    ----------
    .. [1] Vincent, Larochelle, Lajoie, Bengio, Manzagol (2010), "Stacked Denoising Autoencoders", JMLR 11, eq. 8 and
       section 3.3.
    .. [2] Al-Digeil, Grinberg, Melati et al. (2022), "PCA-Boosted Autoencoders for Nonlinear Dimensionality Reduction
      in Low Data Regimes". arXiv:2205.11673

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import DenoisingAutoEncoder
    >>> X = load_digits().data / 16
    >>> denoiser = DenoisingAutoEncoder(10, noise="masking", max_iter=2, random_state=0)
    >>> denoiser.fit_transform(X).shape
    (1797, 10)
    """

    _of_training = BaseAutoEncoder._of_training | {"noise", "noise_level"}

    _parameter_constraints: dict = {
        **BaseAutoEncoder._parameter_constraints,
        "noise": [StrOptions({"gaussian", "masking", "salt_and_pepper", "swap"})],
        "noise_level": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_components=2,
        *,
        noise="gaussian",
        noise_level=0.1,
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
        self.noise = noise
        self.noise_level = noise_level

    def _loss(self, module, x):
        return squared_error(x, module.decode(module.encode(self._corrupt(x))))

    def _corrupt(self, x):
        """A noisy copy of a batch; its columns have mean zero."""
        if self.noise == "gaussian":
            return x + self.noise_level * torch.randn_like(x)
        replaced = torch.rand_like(x) < self.noise_level
        if self.noise == "masking":
            other = torch.zeros_like(x)
        elif self.noise == "salt_and_pepper":
            other = torch.where(torch.rand_like(x) < 0.5, x.amin(0), x.amax(0))
        else:
            n_rows = len(x)
            shift = torch.randint(1, max(n_rows, 2), x.shape, device=x.device)
            other = x.gather(0, (torch.arange(n_rows, device=x.device)[:, None] + shift) % n_rows)
        return torch.where(replaced, other, x)

    def _check_parameters(self):
        super()._check_parameters()
        if self.noise != "gaussian" and self.noise_level > 1:
            raise InvalidParameterError(
                f"noise_level must be at most 1 for noise={self.noise!r}, where it is a probability; got "
                f"{self.noise_level}."
            )
