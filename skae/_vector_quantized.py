"""VQVAE: codes from codebooks of a few vectors."""

import warnings
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.base import ClusterMixin
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits
from torch import nn

from ._base import BaseAutoEncoder
from ._declaration import parameter
from ._distributed import several, summed, total
from ._fitted import checked_draws
from ._losses import squared_error
from ._networks import AutoEncoderModule
from ._rows import NUMBERS_AT_ONCE
from ._scaling import Scaler

# Share of the old codebook that a batch leaves. The paper's 0.99 goes with its learning rate of 2e-4; at 5e-3 the
# encoder moves away from codes that follow so slowly.
DECAY = 0.95
# A code is dead if it is used for less than this share of what each code would have if all were used alike.
DEAD = 0.05
# Codes in a codebook, for a number of codes that is "auto": so many, if there are so many rows for each.
MOST_CODES, ROWS_OF_A_CODE = 64, 7
# Rows of the k-means that initializes the codebook, at most.
MOST_ROWS = 10_000


class VQVAE(ClusterMixin, BaseAutoEncoder):
    r"""Vector-quantized autoencoder.

    The encoder's output :math:`z_e(x)` is replaced by the nearest of K vectors :math:`e_k`, the codebook, before it is
    decoded. Encoder and decoder minimize the mean over rows of

    .. math:: \ell(x) = \lVert x - g(z_q(x)) \rVert^2 + \beta \, \lVert z_e(x) - \mathrm{sg}[z_q(x)] \rVert^2

    where the gradient passes from :math:`z_q` to :math:`z_e` as if they were one, and not into :math:`\mathrm{sg}`
    [1]_. Each code moves to the mean of the outputs assigned to it, an exponential moving average over batches (ibid.,
    eq. 6 to 8): online k-means. Dead codes, which hardly any row uses, are set to outputs of the present batch. With
    several codebooks the components are assigned to them in turn and each quantizes its own, so that a row has one of
    :math:`K^G` codes.

    ``transform`` returns the quantized code, ``predict`` its index. The initialization is k-means of the leading
    principal components, which is k-means of X with as many components as features.

    Parameters
    ----------
    n_components : int or float, default=2
        Number of components of the code, a multiple of `n_codebooks`. A float in (0, 1), for a single codebook, takes
        the fewest for which PCA explains more than this share of the variance.

    n_codes : int or "auto", default="auto"
        Number of vectors K in each codebook: of clusters, if there is one codebook. "auto" is 64, but at most a seventh
        of the rows: a code that hardly any other row shares is a row, not a cluster.

    n_codebooks : int, default=1
        Number of codebooks G. A code takes :math:`G \log_2 K` bits; several reconstruct rows far better than one with
        as many vectors.

    commitment : float, default=0.25
        Weight :math:`\beta` of the distance between the encoder's output and its code [1]_.

    init : {"pca", "random"}, default="pca"
        Initialization, as in AutoEncoder, but followed by k-means of the encoder's outputs, whether these are principal
        components or come from random weights. The fallback is k-means of the principal components.

    Attributes
    ----------
    n_codes_ : int
        Number of vectors in each codebook.

    codebooks_ : ndarray of shape (n_codebooks, n_codes_, n_components_ // n_codebooks), float64
        The codes, in units of X. Codebook g has the components g, g + n_codebooks, ...

    labels_ : ndarray of shape (n_samples,), int64
        Index of the code of each row of `fit`, or of those that the last `partial_fit` passed over, as `predict` gives
        it. Not there if the combinations of codes are more than int64 can number.

    code_frequencies_ : ndarray of shape (n_codebooks, n_codes_), float64
        Share of the rows of `fit`, and of those of each `partial_fit` at the time, that have each code.

    code_followers_ : list of csr_array of shape (n_codes_, n_codes_), float64
        For each codebook but the last, the number of rows, or the sum of their weights, with code i of it and code j of
        the next one.

    See Also
    --------
    sklearn.cluster.KMeans : The initialization; as good if one codebook is enough.
    VAE : A continuous code with a density.

    Notes
    -----
    The validation loss, and so `validation_curve_` and `best_loss_`, is the first term of the objective, the
    reconstruction: the second term is in units of the encoder's own.

    References
    ----------
    .. [1] van den Oord, Vinyals, Kavukcuoglu (2017), "Neural Discrete Representation Learning", eq. 3 and appendix A.1.
       arXiv:1711.00937

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import VQVAE
    >>> X = load_digits().data / 16
    >>> model = VQVAE(8, n_codes=16, n_codebooks=2, max_iter=2, random_state=0).fit(X)
    >>> model.predict(X[:5]).shape, int(model.predict(X).max()) < 16**2, model.sample(3, random_state=0).shape
    ((5,), True, (3, 64))
    """

    n_codes: int | str = parameter(
        StrOptions({"auto"}), Interval(Integral, 1, None, closed="left"), default="auto", defines_network=True
    )
    n_codebooks: int = parameter(Interval(Integral, 1, None, closed="left"), default=1, defines_network=True)
    commitment: float = parameter(Interval(Real, 0, None, closed="left"), default=0.25)

    def _loss(self, module, x):
        z = module.encoder(x)
        quantized, codes = module.quantize(z)
        loss = squared_error(x, module.decode(z + (quantized - z).detach()))
        if module.training:  # the validation loss is the reconstruction: the unit of codes is the encoder's own
            module.move_codes(z.detach(), codes)
            loss = loss + self.commitment * squared_error(z, quantized.detach())
        return loss

    def _check_parameters(self):
        super()._check_parameters()
        whole = isinstance(self.n_components, Integral)
        if self.n_codebooks > 1 and (not whole or self.n_components % self.n_codebooks):
            raise InvalidParameterError(
                "VQVAE assigns the same number of components to each codebook: "
                f"n_components={self.n_components} must be a multiple of n_codebooks={self.n_codebooks}."
            )

    def _build_scaler(self):
        return ScalerWithCodes(self.n_codes)

    def _build_module(self, n_features, n_components, scale, n_codes, **options):
        sizes = self._hidden_layer_sizes()
        codebooks = self.n_codebooks, n_codes
        return QuantizedModule(n_features, n_components, sizes, self.activation, *codebooks, **options)

    def _after_fit(self, X, sample_weight):
        codes, n_codes = self._codes_of(X), self.n_codes_
        weights = np.ones(len(codes)) if sample_weight is None else sample_weight
        counts = np.array([np.bincount(book, weights, n_codes) for book in codes.T])
        followers = [
            sparse.csr_array((weights, (before, after)), shape=(n_codes, n_codes))
            for before, after in pairwise(codes.T)
        ]
        if several():
            counts = summed(torch.from_numpy(counts)).numpy()
            followers = [sparse.csr_array(summed(torch.from_numpy(pairs.toarray())).numpy()) for pairs in followers]
        if self.n_samples_ > total(len(codes)):  # rows of earlier calls of partial_fit count on
            counts = counts + self._code_counts_
            followers = [new + old for new, old in zip(followers, self.code_followers_, strict=True)]
        parts = [pairs.tocoo() for pairs in followers]  # a pickle has arrays only
        self._code_counts_ = counts
        self._code_pairs_ = [np.column_stack([*p.coords, p.data])[p.data > 0] for p in parts]
        self.code_frequencies_, self._codes_ = counts / counts.sum(axis=1, keepdims=True), codes

    def _codes_of(self, X):
        """Index in each codebook, shape (n_samples, n_codebooks)."""

        def codes(x):
            return self.module_.quantize(self.module_.encoder(self._scaler_.transform(x)))[1]

        return self._map(X, codes, self.module_.codebooks.shape[0]).astype(np.int64)

    @property
    def code_followers_(self) -> list:
        check_is_fitted(self)
        shape = (self.n_codes_, self.n_codes_)
        return [
            sparse.csr_array((n, (i.astype(int), j.astype(int))), shape) for i, j, n in (p.T for p in self._code_pairs_)
        ]

    @property
    def labels_(self) -> np.ndarray:
        check_is_fitted(self)
        try:
            return self._numbered(self._codes_)
        except ValueError as error:
            raise AttributeError(str(error)) from None

    @property
    def codebooks_(self) -> np.ndarray:
        check_is_fitted(self)
        return (self.module_.codebooks * self.scale_).numpy(force=True)

    def predict(self, X) -> np.ndarray:
        """Index of the code of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data to quantize.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int64
            From 0 to ``n_codes_**n_codebooks - 1``. Of several codebooks the first counts most:
            ``np.unravel_index(labels, (n_codes_,) * n_codebooks)`` gives the index in each.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X is not valid, or if there are more combinations of codes than int64 can number.
        """
        return self._numbered(self._codes_of(self._validate(X)))

    def _numbered(self, codes):
        """One number for each row of indices in the codebooks."""
        n_codebooks, n_codes = self.module_.codebooks.shape[:2]
        if n_codes**n_codebooks > 2**63:
            raise ValueError(
                f"{n_codes}**{n_codebooks} combinations of codes are more than int64 can number. Use fewer codebooks, "
                "or transform, which gives the quantized code."
            )
        return np.ravel_multi_index(tuple(codes.T), (n_codes,) * n_codebooks)

    def sample(self, n_samples: int = 1, random_state=None) -> Any:
        """Draw new rows: codes from a prior fitted to those of the training rows, decoded.

        The prior of the first codebook's code is its frequency; that of each further one its frequency given the code
        before it, a Markov chain along the codebooks. With one codebook the rows are at most `n_codes_` different ones.

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
        n_codebooks, n_codes = self.code_frequencies_.shape
        codes = np.empty((n_samples, n_codebooks), dtype=np.int64)
        codes[:, 0] = rng.choice(n_codes, n_samples, p=self.code_frequencies_[0])
        for book, followers in enumerate(self.code_followers_):
            for code in np.unique(codes[:, book]):
                drawn, counts = codes[:, book] == code, followers[[code]].toarray()[0]
                codes[drawn, book + 1] = rng.choice(n_codes, drawn.sum(), p=counts / counts.sum())
        return self._map(codes.astype(np.float64), lambda c: self._decode(self._look_up(c)), self.n_features_in_)

    def _look_up(self, codes):
        return self.module_.look_up(codes.long()) * self._code_scale()


class ScalerWithCodes(Scaler):
    """A scaler that knows how many codes there are rows for."""

    attributes = (*Scaler.attributes, "n_codes_")

    def __init__(self, n_codes):
        super().__init__()
        self.n_codes = n_codes

    def fit(self, X, weights=None):
        n_rows = total(X.shape[0])
        self.n_codes_ = max(1, min(MOST_CODES, n_rows // ROWS_OF_A_CODE)) if self.n_codes == "auto" else self.n_codes
        return super().fit(X, weights)

    def network_options(self):
        return super().network_options() | {"n_codes": self.n_codes_}


class QuantizedModule(AutoEncoderModule):
    """A module whose codes are the nearest of a few vectors, in buffers of shape (n_codebooks, n_codes, part).

    PCA initializes it without scaling the axes, so that distances of codes are those of X.
    """

    code_map = "signed permutation"

    def __init__(self, n_features, n_components, hidden_layer_sizes, activation, n_codebooks, n_codes, **options):
        super().__init__(n_features, n_components, hidden_layer_sizes, activation, **options)
        self.n_code_parts = n_codebooks
        self.register_buffer("codebooks", torch.zeros(n_codebooks, n_codes, n_components // n_codebooks))
        self.register_buffer("frequencies", torch.zeros(n_codebooks, n_codes))
        self.register_buffer("sums", torch.zeros_like(self.codebooks))

    def initialize(self, x, rows, axes):
        """K-means of the encoder's output in each codebook; if rows are fewer than codes, the rows."""
        super().initialize(x, rows, axes)
        some = rows[torch.randperm(len(rows), device=rows.device)[:MOST_ROWS]]
        with torch.no_grad():
            pieces = some.split(max(1, NUMBERS_AT_ONCE // x.shape[1]))
            parts = self.split(torch.cat([self.encoder(x[piece]) for piece in pieces]))
        for codebook, part in zip(self.codebooks, parts.numpy(force=True), strict=True):
            part = part.astype(np.float64)
            kmeans = KMeans(min(len(codebook), len(part)), n_init=3, random_state=int(torch.randint(2**31, ())))
            with threadpool_limits(1), warnings.catch_warnings():  # the last bits depend on the number of threads
                warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than codes
                centres = kmeans.fit(part).cluster_centers_
            codebook.copy_(torch.as_tensor(np.resize(centres, codebook.shape)))
        self.reset_averages()

    def set_pca(self, pca):
        super().set_pca(pca._replace(variances=(pca.variances > 0).to(pca.variances)))

    @torch.no_grad()
    def map_code(self, matrix, inverse, shift):
        super().map_code(matrix, inverse, shift)
        for codes in (self.codebooks, self.sums):  # of shape (n_codebooks, n_codes, part), components dealt out in turn
            together = codes.movedim(0, -1).flatten(1)
            codes.copy_((together @ matrix.to(together).T).unflatten(1, (-1, len(codes))).movedim(-1, 0))

    def encode(self, x):
        return self.quantize(self.encoder(x))[0]

    def split(self, z):
        """The components of each codebook, dealt out in turn: shape (n_books, batch, part)."""
        return z.unflatten(-1, (-1, len(self.codebooks))).movedim(-1, 0)

    def quantize(self, z):
        """The nearest codes and their indices, shape (batch, n_books)."""
        # without matrix products: equal codes then have equal distances, whatever rows stand beside a row
        distances = torch.cdist(self.split(z), self.codebooks, compute_mode="donot_use_mm_for_euclid_dist")
        codes = distances.argmin(-1).T
        return self.look_up(codes), codes

    def look_up(self, codes):
        books = torch.arange(len(self.codebooks), device=codes.device)
        return self.codebooks[books, codes].movedim(1, -1).flatten(1)

    def reset_averages(self):
        self.frequencies.fill_(1 / self.frequencies.shape[1])
        self.sums.copy_(self.codebooks * self.frequencies[..., None])

    @torch.no_grad()
    def move_codes(self, z, codes):
        """Towards the means of the outputs assigned to them; dead ones to outputs drawn at random."""
        parts, n_codes = self.split(z), self.frequencies.shape[1]
        # a batch of fewer rows than half the codes tells little of them, and counts for less
        rate = (1 - DECAY) * min(1, 2 * len(z) / n_codes)
        chosen = nn.functional.one_hot(codes.T, n_codes).to(z)
        self.frequencies.lerp_(chosen.mean(1), rate)
        self.sums.lerp_(chosen.mT @ parts / len(z), rate)
        dead = self.frequencies < DEAD / n_codes
        dead &= dead.cumsum(1) <= len(z)  # no more of them at once than there are rows
        drawn = parts[:, torch.randint(len(z), (n_codes,), device=z.device)]
        fresh = torch.full_like(self.frequencies, 1 / n_codes)
        self.frequencies.copy_(torch.where(dead, fresh, self.frequencies))
        self.sums.copy_(torch.where(dead[..., None], drawn * fresh[..., None], self.sums))
        self.codebooks.copy_(self.sums / self.frequencies[..., None])
