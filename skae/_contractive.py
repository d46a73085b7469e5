"""ContractiveAutoEncoder: codes that change little where rows change little."""

from numbers import Real

import torch
from sklearn.utils._param_validation import Interval
from torch import nn

from ._base import BaseAutoEncoder
from ._losses import squared_error


class ContractiveAutoEncoder(BaseAutoEncoder):
    r"""Contractive autoencoder.

    Encoder f and decoder g minimize the mean over rows of

    .. math:: \ell(x) = \lVert x - g(f(x)) \rVert^2 + \lambda \, \lVert J_f(x) \rVert_F^2

    with the Jacobian :math:`J_f(x)` of the code with respect to the row [1]_. It becomes small in every direction but
    those in which rows differ, and noise hardly moves the codes. The norm is exact: with one hidden layer a closed
    form, with more a pass through the layers from the code back. ``transform`` returns f(x), in the units of X.

    Parameters
    ----------
    n_components : int or float, default=2
        Number of components of the code. A float in (0, 1) takes the fewest for which PCA explains more than this share
        of the variance. It may exceed the number of features or rows: PCA then reconstructs the training rows exactly,
        the components beyond their rank start at zero, and any use that training finds for them must pay on held-out
        rows.

    contraction : float, default=0.1
        Weight :math:`\lambda` of the squared norm, with rows divided by `scale_` and, at the start, codes of unit
        variance. 0 is AutoEncoder; more moves codes less and, far above 1, costs reconstruction. 0.1 was the least that
        halved the movement on most data at no loss of it.

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
    DenoisingAutoEncoder : Withstands noise by training on it; cheaper.
    AutoEncoder : The same network without the penalty.

    Notes
    -----
    The linear floor is that of the family, in the objective above: PCA is left only for a clear gain in it. A step
    takes about twice as long as AutoEncoder's with one hidden layer, however many components, and with few
    components; with two hidden layers and 32 components four to five times, and more in large batches.

    References
    ----------
    .. [1] Rifai, Vincent, Muller, Glorot, Bengio (2011), "Contractive Auto-Encoders: Explicit Invariance During Feature
       Extraction", ICML, eq. 5 to 7.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import ContractiveAutoEncoder
    >>> X = load_digits().data / 16
    >>> ContractiveAutoEncoder(10, max_iter=2, random_state=0).fit_transform(X).shape
    (1797, 10)
    """

    _of_training = BaseAutoEncoder._of_training | {"contraction"}

    _parameter_constraints: dict = {
        **BaseAutoEncoder._parameter_constraints,
        "contraction": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_components=2,
        *,
        contraction=0.1,
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
        self.contraction = contraction

    def _loss(self, module, x):
        if self.contraction == 0:
            return squared_error(x, module.decode(module.encode(x)))
        z, squared_norm = encode_with_jacobian(module.encoder, x)
        return squared_error(x, module.decode(z)) + self.contraction * squared_norm


def value_and_slope(activation, a):
    """An activation and its derivative, which can be differentiated again, also where gradients are off."""
    with torch.enable_grad():
        a = a if a.requires_grad else a.detach().requires_grad_()
        h = activation(a)
        (slope,) = torch.autograd.grad(h, a, torch.ones_like(h), create_graph=True)
    return h, slope


def encode_with_jacobian(encoder, x):
    r"""Code of each row and the squared Frobenius norm of its Jacobian, shapes (batch, n_components) and (batch,).

    For the map :math:`W x + W_L \phi(\dots \phi(W_1 x))` the Jacobian is :math:`W + M W_1` with :math:`M = W_L S_{L-1}
    \dots W_2 S_1` and the slopes :math:`S_l` of the activations on diagonals. It is never formed where rows are wider
    than the first layer: :math:`\lVert W + M W_1 \rVert^2` only needs the products :math:`W_1 W_1^T` and
    :math:`W W_1^T`.
    """
    W = encoder.linear.weight
    z = encoder.linear(x)
    if encoder.perceptron is None:
        return z, W.square().sum().expand(len(x))
    h, slopes, weights = x, [], []
    for layer in encoder.perceptron:
        if isinstance(layer, nn.Linear):
            h = layer(h)
            weights.append(layer.weight)
        else:
            h, slope = value_and_slope(layer, h)
            slopes.append(slope)
    first, cross = weights[0], W @ weights[0].T
    gram = first @ first.T
    if len(slopes) == 1:  # a quadratic form in the slopes, whatever the number of components
        (slope,) = slopes
        quadratic = ((slope @ (gram * (weights[1].T @ weights[1]))) * slope).sum(-1)
        return z + h, quadratic + 2 * slope @ (cross * weights[1]).sum(0) + W.square().sum()
    M = weights[-1] * slopes[-1][:, None]
    for weight, slope in zip(weights[-2:0:-1], slopes[-2::-1], strict=True):
        M = (M @ weight) * slope[:, None]
    if first.shape[1] <= first.shape[0]:
        return z + h, (W + M @ first).square().sum((-2, -1))
    return z + h, (M * (M @ gram + 2 * cross)).sum((-2, -1)) + W.square().sum()
