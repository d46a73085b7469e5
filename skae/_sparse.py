"""SparseAutoEncoder: codes of which few entries are active, over a dictionary."""

import math
from numbers import Integral, Real

import torch
from scipy import sparse
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ._base import BaseAutoEncoder
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
      of iterative shrinkage [2]_ with a learned start, and :math:`\Omega = \sum_j |z_j| \lVert d_j \rVert`. Measured
      with the norms of the atoms, codes cannot escape the penalty by growing the dictionary.
    - "kl": :math:`z = \sigma(a)` and :math:`\Omega = \sum_j KL(\rho \Vert \bar z_j)`, the divergence of Bernoulli
      variables with the target activity :math:`\rho` and the mean activity of the batch [3]_.

    ``transform`` returns z, in the units of X (activities between 0 and 1 for "kl"). Components are usually more than
    features: 2 is the default for the sake of the family only.

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
        Mean activity of each entry that "kl" aims at, between 0 and 1 [3]_; the other penalties do not use it.

    sparse_output : bool, default=False
        Whether ``transform`` returns a ``scipy.sparse.csr_array``. ``inverse_transform`` takes both kinds.
        Data frames (``set_output``) cannot hold them.

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
    components_ : ndarray of shape (n_components_, n_features_in_), float64
        The dictionary, one atom a row, in units that make ``transform(X) @ components_`` the reconstruction up to a
        constant row.

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
    AutoEncoder : Codes without zeros, and a nonlinear decoder.
    sklearn.decomposition.DictionaryLearning : Solves for each code exactly, which takes longer.

    Notes
    -----
    The floor of the family has no meaning here: PCA with as many components rebuilds rows better than few of its
    components can. With "top_k" and "l1" one of the starts has the principal axes as its first atoms and rows of X as
    the others, and it is left only for a clear gain in the objective above; "kl", whose codes cannot be PCA's, starts
    at random weights only.

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

    _of_training = BaseAutoEncoder._of_training | {"sparse_output"}

    _parameter_constraints: dict = {
        **BaseAutoEncoder._parameter_constraints,
        "penalty": [StrOptions({"top_k", "l1", "kl"})],
        "n_active": [None, Interval(Integral, 1, None, closed="left")],
        "sparsity": [None, Interval(Real, 0, None, closed="left")],
        "rho": [Interval(Real, 0, 1, closed="neither")],
        "sparse_output": ["boolean"],
    }

    def __init__(
        self,
        n_components=2,
        *,
        penalty="top_k",
        n_active=None,
        sparsity=None,
        rho=0.05,
        sparse_output=False,
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
        self.penalty = penalty
        self.n_active = n_active
        self.sparsity = sparsity
        self.rho = rho
        self.sparse_output = sparse_output

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

    def _build_module(self, n_features, n_components, scale):
        return SparseModule(
            n_features,
            n_components,
            self._hidden_layer_sizes(),
            self.activation,
            self.penalty,
            n_active=min(self.n_active or round(n_components**0.5), n_components),
            threshold=0.5 * self._weight(),
            rho=self.rho,
        )

    def _starts_at_pca(self):
        return super()._starts_at_pca() and self.penalty != "kl"

    def _start_at_rows(self, module, x, rows):
        if self.penalty != "kl":
            module.fill_dictionary(x[rows[torch.randint(len(rows), (module.n_components,)).to(rows)]])

    def _code_unit(self):
        return 1.0 if self.module_.penalty == "kl" else super()._code_unit()

    @property
    def components_(self):
        check_is_fitted(self)
        atoms = self.module_.decoder.linear.weight * (self.scale_ / self._code_unit())
        return atoms.T.numpy(force=True)

    def transform(self, X):
        """Sparse codes of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
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

    def inverse_transform(self, X):
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

    def __init__(self, n_features, n_components, hidden_layer_sizes, activation, penalty, n_active, threshold, rho):
        super().__init__(n_features, n_components, hidden_layer_sizes, activation)
        self.penalty, self.n_active, self.threshold = penalty, n_active, threshold
        self.decoder.perceptron = None
        if penalty == "kl":
            torch.nn.init.constant_(self.encoder.linear.bias, math.log(rho / (1 - rho)))

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
        """Let rows be the atoms that principal axes left at zero."""
        empty = self.atom_norms() == 0
        atoms = torch.nn.functional.normalize(rows[empty], dim=1)
        self.encoder.linear.weight[empty] = atoms
        self.decoder.linear.weight[:, empty] = atoms.T
