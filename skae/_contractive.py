"""ContractiveAutoEncoder: codes that change little where rows change little."""

from numbers import Real

import torch
from sklearn.utils._param_validation import Interval
from torch import nn

from ._base import BaseAutoEncoder
from ._declaration import parameter
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
    contraction : float, default=0.1
        Weight :math:`\lambda` of the squared norm, with rows divided by `scale_` and, at the initialization, codes of
        unit variance. 0 is AutoEncoder. With a larger weight noise moves codes less; far above 1 the reconstruction
        becomes worse. 0.1 is the smallest weight that halved the movement on most data at no loss of reconstruction.

    See Also
    --------
    DenoisingAutoEncoder : Withstands noise because it trains on it; faster.
    AutoEncoder : The same network without the penalty.

    Notes
    -----
    The objective above also decides whether PCA is kept as the fallback. With one hidden layer, or with few components,
    a step takes about twice as long as AutoEncoder's; with two hidden layers and 32 components four to five times as
    long, and more in large batches.

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

    contraction: float = parameter(Interval(Real, 0, None, closed="left"), default=0.1)

    def _loss(self, module, x):
        if self.contraction == 0:
            return squared_error(x, module.decode(module.encode(x)))
        z, squared_norm = encode_with_jacobian(module.encoder, x)
        return squared_error(x, module.decode(z)) + self.contraction * squared_norm


def value_and_slope(activation, a):
    """An activation and its derivative, which can be differentiated again, also where gradients are off."""
    if torch._C._are_functorch_transforms_active():  # of stacked networks, where requires_grad_ is not possible
        h, pull_back = torch.func.vjp(activation, a)
        return h, *pull_back(torch.ones_like(h))
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
    x, W = encoder.inputs(x), encoder.linear.weight
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
