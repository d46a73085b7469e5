"""NeighborAutoEncoder: codes that keep neighbourhoods, for maps that can be read backwards."""

import math
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils import check_consistent_length
from sklearn.utils._param_validation import Interval
from sklearn.utils.multiclass import type_of_target

from ._base import BaseAutoEncoder
from ._columns import is_missing
from ._declaration import parameter
from ._distributed import alone
from ._losses import info_nce, squared_error
from ._mapped import MappedRows
from ._nearest import NeighborRows, nearest, neighbors_of, with_classes
from ._networks import AutoEncoderModule
from ._parameters import validated
from ._rows import TableRows, distinct
from ._training import reproducible

# Each row of a pair is mixed with a neighbour by up to this share, and this share of its entries is masked; of rows
# with d columns, less by the factor d / (d + FEW). Where they are few, the others do not tell what is masked, and new
# rows are near those of the fit as it is.
MIXED, MASKED, FEW = 0.5, 0.2, 16
# Standard deviation of the codes along the first axis, at the initialization.
SPREAD = 1.0
# A fifth of the rows, within these limits.
MIN_BATCH, MAX_BATCH = 64, 1024
# Rows that pass through the network in all epochs, and the least and the largest number of these.
MAX_ROWS, MIN_EPOCHS, MAX_EPOCHS = 562_500, 45, 150
# Floating-point numbers with more values than this are no classes, be they whole.
MOST_CLASSES = 50


class NeighborAutoEncoder(BaseAutoEncoder):
    r"""Autoencoder of maps: its codes keep neighbourhoods.

    Encoder f and decoder g minimize the mean over rows of

    .. math:: \ell(x_i) = \lVert x_i - g(f(x_i)) \rVert^2 + \lambda d
        \ln \sum_j \frac{1 + \lVert f(x_i) - f(x'_i) \rVert^2}{1 + \lVert f(x_i) - f(x'_j) \rVert^2}

    with d the number of features, a row x' near each row x, drawn anew for every batch from its nearest neighbours, and
    the sum over the rows of the batch: the loss of InfoNC-t-SNE [1]_, by a network as in parametric UMAP [2]_. Codes of
    near rows attract, those of all others repel each other. ``transform`` returns f(x), and ``inverse_transform`` tells
    what any place of the map would be, an empty one too.

    Parameters
    ----------
    neighbor_weight : float, default=3.0
        Weight :math:`\lambda` of the neighbour loss, in nats, beside the share of the variance that is left
        unexplained. 0 is AutoEncoder without validation rows.

    n_neighbors : int, default=15
        Number of nearest neighbours of a row, from which those near it are drawn; of fewer rows, all others. More give
        a smoother map.

    transform_neighbors : int or None, default=None
        None places a row by the network alone. With a number, such as 5, the code of a row is the median, of each
        component, of the codes of so many nearest training rows: finer for new rows, as the network is surer of the
        rows that it has seen. The training rows are kept, also in a pickle, and are looked through for every row.

    hidden_layer_sizes : int or array-like of int, default=(512, 512, 256)
        Widths of the encoder's hidden layers; the decoder has them in reverse order. A map needs wider layers than a
        reconstruction. ``()`` makes both linear.

    init : {"pca", "random"}, default="pca"
        Initialization: "pca" at the principal axes of all rows of X, so that maps of different seeds look alike and
        distant groups lie as in PCA; "random" with random weights. One network is trained; PCA is no fallback, as its
        codes do not keep neighbourhoods.

    batch_size : int or "auto", default="auto"
        Rows in a training step, the negatives of each other. "auto" is a fifth of the rows between 64 and 1,024, all
        batches about as large; in `partial_fit` it is a 40th between 32 and 512.

    max_iter : int or None, default=None
        Number of epochs: passes over the training rows. None is 562,500 divided by the number of rows, at least 45
        and at most 150: 75 for 7,500 rows.

    Attributes
    ----------
    best_iter_ : int
        Epoch whose weights are kept: the last one with a finite loss.

    loss_curve_ : list of float
        Mean loss of a training row in each epoch, for X divided by `scale_`.

    validation_curve_ : None
        No rows validate.

    best_loss_ : float
        Mean loss of a training row in the end, among up to 2,048 rows: more than in `loss_curve_` where batches are
        smaller, as there are more to tell a row from.

    See Also
    --------
    AutoEncoder : Reconstruction alone; the better one for more than a few components.
    sklearn.manifold.TSNE : Maps without a way back, and without new rows.

    Notes
    -----
    Standardize the columns of a table first, as for PCA; divide pictures by their maximum. Codes have units of their
    own, those of the kernel. Only what is near in a map means something: sizes and distances of groups do not.

    A map by a network keeps less of the local structure than one that places each row freely, above all of new rows
    [3]_. Against that each row of a pair is mixed with a neighbour, by up to one half, and a fifth of its entries are
    masked, of rows with few columns less. All rows train and the weights of the last epoch are kept.

    Neighbours are exact up to 20,000 rows and where cells are missing; beyond they are found by the package
    pynndescent. Rows in a memory map of 128 MB or more have to be read into memory first. `partial_fit` takes
    neighbours among the rows of a call.

    References
    ----------
    .. [1] Damrich, Böhm, Hamprecht, Kobak (2023), "From t-SNE to UMAP with contrastive learning", ICLR.
       arXiv:2206.01816
    .. [2] Sainburg, McInnes, Gentner (2021), "Parametric UMAP Embeddings for Representation and Semisupervised
       Learning", Neural Computation 33(11). arXiv:2009.12981
    .. [3] Huang, Wang, Rudin (2024), "Navigating the Effect of Parametrization for Dimensionality Reduction",
       NeurIPS. arXiv:2411.15894

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import NeighborAutoEncoder
    >>> X = load_digits().data / 16
    >>> map = NeighborAutoEncoder(max_iter=1, random_state=0).fit(X)
    >>> map.transform(X).shape
    (1797, 2)
    >>> map.inverse_transform([[0.0, 0.0]]).shape
    (1, 64)
    """

    neighbor_weight: float = parameter(Interval(Real, 0, None, closed="left"), default=3.0)
    n_neighbors: int = parameter(Interval(Integral, 1, None, closed="left"), default=15)
    transform_neighbors: int | None = parameter(None, Interval(Integral, 1, None, closed="left"), default=None)
    hidden_layer_sizes: object = parameter(default=(512, 512, 256))
    # not parameters here: what keeps neighbourhoods best is not what a loss of other rows would choose
    early_stopping = False
    cv = "auto"
    validation_fraction = n_iter_no_change = tol = None

    def _loss(self, module, x):
        if self.neighbor_weight == 0:
            return squared_error(x, module.decode(module.encode(x)))
        row, near = self._pairs(x)
        z, z_near = (module.encode(self._masked(rows, module.columns)) for rows in (row, near))
        neighbor_loss = x.shape[-1] * info_nce(z, z_near)
        return squared_error(row, module.decode(z)) + self.neighbor_weight * neighbor_loss

    def _pairs(self, x):
        """Two rows near each row of a batch (batch, 4, n_inputs), which has three of the neighbours of each."""
        row, near, *others = (_like(rows, x) for rows in x.unbind(1))
        return (self._mixed(*rows) for rows in ((row, others[0]), (near, others[1])))

    def _mixed(self, row, other):
        """A row on the way to another, as far as that is known."""
        share = MIXED * _many(row) * torch.rand(len(row), 1, device=row.device)
        if isinstance(row, TableRows):
            return _like(row + share * torch.where(other.isnan(), 0, other - row), row)
        return torch.lerp(row, other, share)

    def _masked(self, x, columns):
        if columns is None:
            hidden = torch.rand_like(x) < MASKED * _many(x)
        else:
            hidden = torch.rand(len(x), len(columns.sizes), device=x.device) < MASKED * _many(x)
            hidden = hidden[:, columns.column_of_input.to(x.device)]
        if isinstance(x, TableRows):
            return _like(torch.where(hidden & ~x.isnan(), 0, x), x)
        return x.masked_fill(hidden, 0)

    def _build_module(self, n_features, n_components, scale, **options):
        return NeighborModule(n_features, n_components, self._hidden_layer_sizes(), self.activation, **options)

    def _training_rows(self, x, sample, y):
        if isinstance(x, MappedRows) and (self.neighbor_weight or self.transform_neighbors):
            raise ValueError(
                f"{type(self).__name__} needs X in memory, as it looks for neighbours among all rows, and X is a "
                "memory map that is read in blocks. Use np.array(X) if it fits into memory, or fit to a sample of its "
                "rows: transform takes a memory map."
            )
        if self.neighbor_weight or self.transform_neighbors:
            alone("To look for neighbours among all rows")
        if self.neighbor_weight == 0:
            return x
        neighbors, classes = neighbors_of(x, self.n_neighbors), _classes(y, sample)
        if classes is not None:
            with reproducible(0, x.device):
                neighbors = with_classes(neighbors, torch.from_numpy(classes).to(x.device))
        return NeighborRows(x, neighbors, 3)

    def _batch_size(self, n_rows):
        if self.batch_size != "auto":
            return self.batch_size
        size = min(max(n_rows // 5, MIN_BATCH), MAX_BATCH)
        return math.ceil(n_rows / math.ceil(n_rows / size))

    def _max_epochs(self, n_rows):
        return self.max_iter if self.max_iter is not None else min(max(MAX_ROWS // n_rows, MIN_EPOCHS), MAX_EPOCHS)

    def _after_fit(self, X, sample_weight):
        self._map_rows_ = self._map_codes_ = None
        if self.transform_neighbors is not None:
            self._map_rows_ = distinct(X, sample_weight).X
            self._map_codes_ = self._map(self._map_rows_, super()._encode, self.n_components_)

    def _encode(self, x):
        z = super()._encode(x)
        if self.transform_neighbors is None:
            return z
        if self._map_rows_ is None:
            raise ValueError(
                f"transform_neighbors={self.transform_neighbors} needs the training rows, which were not kept, as it "
                "was None in fit. Call fit again."
            )
        rows = self._scaler_.tensor(self._map_rows_, x.device)
        n_neighbors = min(self.transform_neighbors, len(rows))
        places, comparable = nearest(self._scaler_.transform(x), rows, n_neighbors)
        codes = torch.from_numpy(self._map_codes_.astype(np.float64)).to(x.device)[places]
        return torch.where(comparable.all(1, keepdim=True), codes.quantile(0.5, 1), z)

    def fit(self, X, y=None, sample_weight=None):
        """Fit the network to X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data, finite or NaN where a cell is missing; the network is trained in float32 whatever its dtype.
            Of a sparse X only the rows of a batch are ever dense.
        y : array-like of shape (n_samples,), default=None
            Class of each row; NaN, None or -1 where it is not known. Rows of a class attract each other then: half of
            the neighbours of such a row, and all that are of another class, are replaced by random rows of its class.
            A y that is not one class for each row, such as a number to predict, is ignored: also whole numbers in a
            float dtype, if they have more than 50 values. None uses no classes.
        sample_weight : array-like of shape (n_samples,), default=None
            How much each row counts: in the mean, in PCA and in how often it is in a batch. A weight of two is a row
            given twice, zero one left out. None is one for each.

        Returns
        -------
        self : object
            Fitted estimator.

        Raises
        ------
        ValueError
            If X has the wrong shape, infinity or values that are too large, if X is a memory map that is read in
            blocks, if y or weights are not valid, if the device is not available, or if the loss is not finite at the
            initialization. The estimator stays as it was, as it does after an interrupt.
        ImportError
            If X has more than 20,000 rows and the package pynndescent is not there.
        torch.OutOfMemoryError
            If the device has too little memory.

        Warns
        -----
        ConvergenceWarning
            If the loss became infinite or NaN; the last weights before that are kept.
        """
        if y is not None:
            check_consistent_length(X, y)
        return super().fit(X, y, sample_weight)

    @validated
    def partial_fit(self, X, y=None, sample_weight=None):
        """Continue from the present weights with one pass over the rows of X, and with neighbours among these.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to learn from.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            How much each row counts. None is one for each.

        Returns
        -------
        self : object
            Fitted estimator.

        Raises
        ------
        ValueError
            As in the other estimators, and if `transform_neighbors` is not None: it needs the rows of all calls.
        """
        if self.transform_neighbors is not None:
            raise ValueError(
                f"transform_neighbors={self.transform_neighbors} needs all training rows, and partial_fit has only "
                "those of a call. Use transform_neighbors=None, or fit."
            )
        return super().partial_fit(X, y, sample_weight)


class NeighborModule(AutoEncoderModule):
    """An autoencoder whose codes have units of their own, in which the kernel measures distances."""

    starts_once = True
    code_map = "orthogonal"  # distances of codes are those of the kernel

    def __init__(self, n_features, n_components, hidden_layer_sizes, activation, **options):
        super().__init__(n_features, n_components, hidden_layer_sizes, activation, **options)
        self.code_scale = None

    @torch.no_grad()
    def set_pca(self, pca):
        """Make encoding and decoding PCA, with all codes divided by one number."""
        super().set_pca(pca)
        deviations = pca.variances.sqrt()
        factors = torch.where(deviations > 0, SPREAD * deviations / deviations.max(), 1)
        self.encoder.linear.weight.mul_(factors[:, None])
        self.encoder.linear.bias.mul_(factors)
        self.decoder.linear.weight.div_(factors)


def _many(x):
    """From 0 to 1: whether rows have many columns."""
    return x.shape[-1] / (x.shape[-1] + FEW)


def _like(rows, x):
    return TableRows.of(rows, x.weights) if isinstance(x, TableRows) else rows


def _classes(y, sample):
    """A number for the class of each row of a sample, -1 where it is not known; None if y has no classes."""
    if y is None:
        return None
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        return None
    known = np.array([not (is_missing(label) or label == -1) for label in labels.tolist()], bool)
    if labels.dtype.kind == "f" and len(np.unique(labels[known])) > MOST_CLASSES:
        return None
    if not known.any() or not type_of_target(labels[known].tolist()).startswith(("binary", "multiclass")):
        return None
    classes = np.full(len(labels), -1)
    classes[known] = np.unique(labels[known].tolist(), return_inverse=True)[1]
    if sample.copies is None:
        return classes
    known &= sample.copies >= 0
    pairs, counts = np.unique([sample.copies[known], classes[known]], axis=1, return_counts=True)
    pairs, of_copies = pairs[:, counts.argsort(kind="stable")], np.full(sample.X.shape[0], -1)
    of_copies[pairs[0]] = pairs[1]  # of the classes of equal rows the most frequent is the last
    return of_copies
