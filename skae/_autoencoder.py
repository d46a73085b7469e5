"""AutoEncoder: the plain member of the family."""

from sklearn.utils._param_validation import StrOptions

from ._base import BaseAutoEncoder
from ._declaration import parameter
from ._losses import binary_cross_entropy, squared_error
from ._networks import AutoEncoderModule
from ._scaling import Scaler


class AutoEncoder(BaseAutoEncoder):
    r"""Autoencoder.

    Encoder f and decoder g are each a linear map plus a multilayer perceptron, and minimize the mean over rows of

    .. math:: \ell(x) = \lVert x - g(f(x)) \rVert^2

    summed over features. They are initialized as PCA, and PCA is the fallback: a nonlinear PCA [1]_ that is no worse on
    validation rows [2]_. ``transform`` returns f(x), in the units of X; without hidden layers it is PCA's. Components
    are uncorrelated, the first explains most, and the variance of each is what it explains, as in PCA.

    Parameters
    ----------
    loss : {"squared_error", "binary_cross_entropy"}, default="squared_error"
        Objective of a row. "binary_cross_entropy" is for X in [0, 1]: g(z) are probabilities p and the loss is
        :math:`-\sum_j x_j \ln p_j + (1 - x_j) \ln (1 - p_j)`.

    See Also
    --------
    DenoisingAutoEncoder : Learns to remove noise, for features that withstand it.
    VAE : Gives a density, and draws new rows.
    sklearn.decomposition.PCA : The linear map that initializes this estimator.

    Notes
    -----
    Standardize the columns of a table first, as for PCA; divide pictures by their maximum. PCA is the better choice
    for linear data, for fewer than a hundred rows, and if axes are to be interpreted.

    References
    ----------
    .. [1] Kramer (1991), "Nonlinear principal component analysis using autoassociative neural networks", AIChE Journal
       37(2), eq. 8.
    .. [2] Al-Digeil, Grinberg, Melati et al. (2022), "PCA-Boosted Autoencoders for Nonlinear Dimensionality Reduction
      in Low Data Regimes". arXiv:2205.11673

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoder
    >>> X = load_digits().data / 16
    >>> autoencoder = AutoEncoder(n_components=10, max_iter=2, random_state=0)
    >>> autoencoder.fit_transform(X).shape
    (1797, 10)
    >>> autoencoder.inverse_transform(autoencoder.transform(X[:5])).shape
    (5, 64)
    """

    loss: str = parameter(
        StrOptions({"squared_error", "binary_cross_entropy"}), default="squared_error", defines_network=True
    )

    def _loss(self, module, x):
        z = module.encode(x)
        if self.loss == "binary_cross_entropy":
            return binary_cross_entropy(x, module.logits(z))
        return squared_error(x, module.decode(z))

    def _build_module(self, n_features, n_components, scale, **options):
        probabilities = self.loss == "binary_cross_entropy"
        sizes = self._hidden_layer_sizes()
        return AutoEncoderModule(n_features, n_components, sizes, self.activation, probabilities, **options)

    def _build_scaler(self):
        return Scaler(probabilities=self.loss == "binary_cross_entropy")
