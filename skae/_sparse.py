"""SparseAutoEncoder: codes of which few entries are active, over a dictionary."""

import math
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ._base import BaseAutoEncoder
from ._declaration import parameter
from ._losses import activity_kl, squared_error
from ._networks import AutoEncoderModule


class SparseAutoEncoder(BaseAutoEncoder):
    r"""Sparse autoencoder.

    Rows are rebuilt as :math:`\hat x = D^T z + b` from a dictionary D of atoms, one a component, and codes z = f(x) of
    which few entries are active. Encoder and dictionary minimize the mean over rows of

    .. math:: \ell(x) = \lVert x - D^T f(x) - b \rVert^2 + \lambda \, \Omega(z)

    With a(x) for a linear map plus a multilayer perceptron, ``penalty`` says what codes and :math:`\Omega` are:

    - "top_k": the k entries of a(x) with the largest :math:`|a_j| \lVert d_j \rVert`, the others zero; no penalty [1]_.
    - "l1": the soft threshold :math:`z_j = \mathrm{sign}(a_j) \max(|a_j| - \lambda / 2 \lVert d_j \rVert, 0)`, one step
      of iterative shrinkage [2]_ from a learned initial value, and :math:`\Omega = \sum_j |z_j| \lVert d_j \rVert`.
      Because of the norms of the atoms, a larger dictionary with smaller codes does not lower the penalty.
    - "kl": :math:`z = \sigma(a)` and :math:`\Omega = \sum_j KL(\rho \Vert \bar z_j)`, the divergence of Bernoulli
      variables with the target activity :math:`\rho` and the mean activity of the batch [3]_.

    ``transform`` returns z, in the units of X (activities between 0 and 1 for "kl"). There are usually more components
    than features; the default of 2 is only that of the family.

    Parameters
    ----------
    n_components : int or float, default=2
        Number of atoms, usually more than there are features. A float in (0, 1) takes the fewest components for which
        PCA explains more than this share of the variance.

    penalty : {"top_k", "l1", "kl"}, default="top_k"
        How codes are made sparse: "top_k" leaves exactly as many entries as asked for, "l1" as many as each row needs,
        "kl" only makes each entry active seldom.

    n_active : int or None, default=None
        Entries k that "top_k" leaves in each code (the other penalties do not use it); more than there are components
        leaves all. None is the square root of the number of components, rounded: 10 of 100.

    sparsity : float or None, default=None
        Weight :math:`\lambda` of the penalties "l1" and "kl" ("top_k" has none), beside a squared error summed over the
        features of rows divided by `scale_`. None is 1 for "l1", which leaves a quarter of 100 entries active on
        digits, and 20 for "kl", which brings the mean activity there within a tenth of its target.

    rho : float, default=0.05
        Target of the mean activity of each entry for "kl", between 0 and 1 [3]_; the other penalties do not use it.

    sparse_output : bool, default=False
        Whether ``transform`` returns a ``scipy.sparse.csr_array``. ``inverse_transform`` takes both kinds.
        Data frames (``set_output``) cannot hold them.

    hidden_layer_sizes : int or array-like of int, default=(128, 64)
        Widths of the encoder's hidden layers. The decoder is linear, the dictionary, and has none. ``()`` makes the
        encoder linear too.

    init : {"pca", "random"}, default="pca"
        Initialization, as in AutoEncoder. With "pca" the first atoms are the principal axes and the others rows of X,
        and this dictionary is the fallback. The penalty "kl", whose codes cannot be PCA's, always has random weights.

    Attributes
    ----------
    components_ : ndarray of shape (n_components_, n_features_in_), float64
        The dictionary, one atom a row, in units that make ``transform(X) @ components_`` the reconstruction up to a
        constant row.

    See Also
    --------
    AutoEncoder : Codes without zeros, and a nonlinear decoder.
    sklearn.decomposition.DictionaryLearning : Solves for each code exactly, which takes longer.

    Notes
    -----
    The reconstruction can be worse than PCA's: PCA uses all of its components for a row, a sparse code only a few. The
    fallback is the initial dictionary instead.

    References
    ----------
    .. [1] Makhzani and Frey (2014), "k-Sparse Autoencoders", section 2. arXiv:1312.5663
    .. [2] Gregor and LeCun (2010), "Learning Fast Approximations of Sparse Coding", ICML, eq. 3.
    .. [3] Ng (2011), "Sparse autoencoder", CS294A lecture notes, Stanford, section 3.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import SparseAutoEncoder
    >>> X = load_digits().data / 16
    >>> model = SparseAutoEncoder(100, n_active=5, max_iter=2, random_state=0).fit(X)
    >>> (model.transform(X) != 0).sum(axis=1).max(), model.components_.shape
    (np.int64(5), (100, 64))
    """

    penalty: str = parameter(StrOptions({"top_k", "l1", "kl"}), default="top_k", defines_network=True)
    n_active: int | None = parameter(
        None, Interval(Integral, 1, None, closed="left"), default=None, defines_network=True
    )
    sparsity: float | None = parameter(None, Interval(Real, 0, None, closed="left"), default=None, defines_network=True)
    rho: float = parameter(Interval(Real, 0, 1, closed="neither"), default=0.05, defines_network=True)
    sparse_output: bool = parameter("boolean", default=False)

    def _loss(self, module, x):
        z = module.encode(x)
        loss = squared_error(x, module.decode(z))
        if self.penalty == "l1":
            loss = loss + self._weight() * (z.abs() * module.atom_norms()).sum(-1)
        elif self.penalty == "kl":
            loss = loss + self._weight() * activity_kl(z, self.rho)
        return loss

    def _weight(self):
        return self.sparsity if self.sparsity is not None else {"top_k": 0.0, "l1": 1.0, "kl": 20.0}[self.penalty]

    def _build_module(self, n_features, n_components, scale, **options):
        return SparseModule(
            n_features,
            n_components,
            self._hidden_layer_sizes(),
            self.activation,
            self.penalty,
            n_active=min(self.n_active or round(n_components**0.5), n_components),
            threshold=0.5 * self._weight(),
            rho=self.rho,
            **options,
        )

    @property
    def components_(self) -> np.ndarray:
        check_is_fitted(self)
        atoms = self.module_.decoder.linear.weight * (self.scale_ / self._code_scale())
        return atoms.T.numpy(force=True)

    def transform(self, X) -> Any:
        """Sparse codes of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data to encode.

        Returns
        -------
        X_new : ndarray or csr_array of shape (n_samples, n_components_), float32 for float32 X and float64 otherwise
            Codes; a csr_array if `sparse_output` is True.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X has another number of features than in `fit`, or NaN or infinity.
        """
        codes = super().transform(X)
        return sparse.csr_array(codes) if self.sparse_output else codes

    def inverse_transform(self, X) -> Any:
        """Decode codes, back in the units of the training data.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_components_)
            Codes.

        Returns
        -------
        X_original : ndarray of shape (n_samples, n_features_in_), float32 for float32 X and float64 otherwise
            Reconstruction.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X has another number of columns than `n_components_`, or NaN or infinity.
        """
        return super().inverse_transform(X.toarray() if sparse.issparse(X) else X)


class SparseModule(AutoEncoderModule):
    """A module whose decoder is linear, the dictionary, and whose encoder makes its output sparse."""

    def __init__(
        self, n_features, n_components, hidden_layer_sizes, activation, penalty, n_active, threshold, rho, **options
    ):
        super().__init__(n_features, n_components, hidden_layer_sizes, activation, **options)
        self.penalty, self.n_active, self.threshold = penalty, n_active, threshold
        self.decoder.perceptron = None
        if penalty == "kl":
            self.has_pca, self.code_scale = False, None  # codes are activities
            torch.nn.init.constant_(self.encoder.linear.bias, math.log(rho / (1 - rho)))

    @property
    def code_map(self):
        return "permutation" if self.penalty == "kl" else "signed permutation"

    def initialize(self, x, rows, axes):
        super().initialize(x, rows, axes)
        if self.penalty != "kl":
            self.fill_dictionary(x[rows[torch.randint(len(rows), (self.decoder.linear.in_features,)).to(rows)]])

    def atom_norms(self):
        return self.decoder.linear.weight.norm(dim=0)

    def encode(self, x):
        a = self.encoder(x)
        if self.penalty == "kl":
            return a.sigmoid()
        if self.penalty == "l1":
            threshold = self.threshold / self.atom_norms().clamp_min(1e-6)
            return a - a.clamp(-threshold, threshold)
        kept = (a.detach().abs() * self.atom_norms()).topk(self.n_active, dim=-1).indices
        return torch.zeros_like(a).scatter(-1, kept, a.gather(-1, kept))

    @torch.no_grad()
    def fill_dictionary(self, rows):
        """Set the atoms that the principal axes left at zero to rows."""
        empty = self.atom_norms() == 0
        rows = self.encoder.inputs(rows)[:, : rows.shape[1]]  # filled, without what tells which cells were missing
        atoms = torch.nn.functional.normalize(rows[empty], dim=1)
        self.encoder.linear.weight[empty, : rows.shape[1]] = atoms
        self.decoder.linear.weight[:, empty] = atoms.T
