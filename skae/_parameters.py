"""The parameters that all members share: defaults, documentation, and what "auto" and None stand for."""

import math
import re
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, InvalidParameterError, RealNotInt, StrOptions

from ._declaration import Declared, parameter
from ._networks import ACTIVATIONS

__all__ = ["SharedParameters"]


class DeviceOptions(StrOptions):
    """Names of devices, and "cuda:N" for one GPU of several."""

    def is_satisfied_by(self, val):
        return super().is_satisfied_by(val) or (isinstance(val, str) and re.fullmatch(r"cuda:\d+", val) is not None)

    def __str__(self):
        return f"{super().__str__()} or 'cuda:N' with the number N of a GPU"


class SharedParameters(Declared):
    """Parameters of every member, and the attributes that every fit sets.

    Parameters
    ----------
    n_components : int or float, default=2
        Number of components of the code. A float in (0, 1) takes the fewest for which PCA explains more than this share
        of the variance. It may exceed the number of features or rows: components beyond their rank are initialized at
        zero.

    hidden_layer_sizes : int or array-like of int, default=(128, 64)
        Widths of the encoder's hidden layers; the decoder has them in reverse order. ``()`` makes both linear.

    activation : {"identity", "logistic", "tanh", "relu", "gelu", "silu"}, default="silu"
        Activation of the hidden layers.

    init : {"pca", "random"}, default="pca"
        Initialization. With "pca" two networks are trained, as neither initialization is best on all data: one
        initialized at the principal axes of all rows of X, one with random weights. The weights with the lowest loss on
        the validation rows are kept. PCA itself, in variational members probabilistic PCA, is the fallback: it is kept
        unless they are clearly better there than PCA of the training rows, by one standard error of the mean gain, or
        for a share of rows above one half by two of its standard errors. Fewer than ten validation rows cannot tell,
        and PCA is kept. "random" trains only the network with random weights, at half the cost.

    alpha : float, default=0.1
        L2 regularization: decay of the weight matrices, decoupled from the gradient (each step multiplies them by
        ``1 - learning rate * alpha``).

    batch_size : int or "auto", default="auto"
        Rows in a training step. "auto" is a 40th of the training rows, at least 32 and at most 512, so that a fit takes
        about the same number of steps whatever the number of rows.

    learning_rate_init : float, default=0.005
        Highest learning rate of Adam. It is reached after a tenth of the steps and falls to zero as a cosine.

    max_iter : int or None, default=None
        Maximum number of epochs: passes over the training rows, for each network that is trained. None is 400,000
        divided by the number of rows, at least 55 and at most 100: 100 up to 4,000 rows, where more passes gain most
        and cost least.

    early_stopping : bool, default=True
        Whether to set aside validation rows, which do not train and choose the epoch and the network to keep. Rows of X
        that are equal stay together, or those of a group, if `fit` is given `groups`; `X_val` in `fit` gives other rows
        instead. If False, all rows train and the training loss chooses.

    validation_fraction : float or "auto", default="auto"
        Share of the rows set aside for validation. "auto" is a tenth, but at least 50 rows and at most a third of all.

    n_iter_no_change : int, default=20
        Number of epochs without an improvement by `tol` after which training stops.

    tol : float, default=1e-4
        Smallest improvement of the validation loss that counts, as a share of the loss.

    warm_start : bool, default=False
        Whether `fit` continues training from the weights of the previous fit, with its mean and scale. Parameters that
        define the network, such as `hidden_layer_sizes`, cannot change then; an error names them.

    device : {"cpu", "cuda", "mps", "auto"} or str, default="cpu"
        Where to compute: "cuda" is the current GPU, "cuda:1" the second one; "auto" takes an accelerator if
        there is one. For tables of some thousand rows a CPU is as fast.

    random_state : int, RandomState instance or None, default=None
        Determines initial weights, the order of the rows and noise. An int makes results reproducible, bit for bit on
        the same machine.

    Attributes
    ----------
    module_ : torch.nn.Module
        The network, with ``encode`` and ``decode``, in float64.

    n_components_ : int
        Number of components.

    n_iter_ : int
        Number of epochs of the network that is kept.

    best_iter_ : int
        Epoch whose weights are kept; 0 is the initialization.

    loss_curve_ : list of float
        Mean training loss of a row in each epoch, for X divided by `scale_`.

    validation_curve_ : list of float or None
        Mean loss of a validation row, at the initialization and after each epoch; None without validation rows.

    best_loss_ : float
        Mean loss of a validation row (of a training row, without validation rows) at the weights that are kept.

    mean_ : ndarray of shape (n_features_in_,), float64
        Mean of each feature, subtracted before encoding; zeros where the decoder gives probabilities.

    scale_ : float
        Root mean square deviation over all features, by which X is divided: one number, so that PCA stays PCA. 1 where
        the decoder gives probabilities.

    n_samples_ : int
        Number of rows seen during `fit` and `partial_fit`.

    n_features_in_ : int
        Number of features seen during `fit`.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features seen during `fit`, if they are all strings.
    """

    n_components: int | float = parameter(
        Interval(Integral, 1, None, closed="left"),
        Interval(RealNotInt, 0, 1, closed="neither"),
        default=2,
        defines_network=True,
        kw_only=False,
    )
    hidden_layer_sizes: object = parameter(
        "array-like", Interval(Integral, 1, None, closed="left"), default=(128, 64), defines_network=True
    )
    activation: str = parameter(StrOptions(set(ACTIVATIONS)), default="silu", defines_network=True)
    init: str = parameter(StrOptions({"pca", "random"}), default="pca")
    alpha: float = parameter(Interval(Real, 0, None, closed="left"), default=0.1)
    batch_size: int | str = parameter(StrOptions({"auto"}), Interval(Integral, 1, None, closed="left"), default="auto")
    learning_rate_init: float = parameter(Interval(Real, 0, None, closed="neither"), default=0.005)
    max_iter: int | None = parameter(Interval(Integral, 1, None, closed="left"), None, default=None)
    early_stopping: bool = parameter("boolean", default=True)
    validation_fraction: float | str = parameter(
        StrOptions({"auto"}), Interval(Real, 0, 1, closed="neither"), default="auto"
    )
    n_iter_no_change: int = parameter(Interval(Integral, 1, None, closed="left"), default=20)
    tol: float = parameter(Interval(Real, 0, None, closed="left"), default=1e-4)
    warm_start: bool = parameter("boolean", default=False)
    device: str = parameter(DeviceOptions({"cpu", "cuda", "mps", "auto"}), default="cpu")
    random_state: object = parameter("random_state", default=None)

    def _hidden_layer_sizes(self):
        sizes = np.atleast_1d(self.hidden_layer_sizes).tolist()
        if not all(isinstance(size, Integral) and not isinstance(size, bool) and size > 0 for size in sizes):
            raise InvalidParameterError(f"hidden_layer_sizes must be integers > 0, got {self.hidden_layer_sizes}.")
        return tuple(sizes)

    def _batch_size(self, n_rows):
        """A fit takes about the same number of steps whatever the number of rows: 40 an epoch."""
        return self.batch_size if self.batch_size != "auto" else max(32, min(n_rows // 40, 512))

    def _max_epochs(self, n_rows):
        """The fewer the rows, the more epochs: 400,000 rows in all, between 55 and 100 epochs."""
        return self.max_iter if self.max_iter is not None else min(max(400_000 // n_rows, 55), 100)

    def _n_validation_rows(self, n_rows):
        """A tenth, but at least 50 to tell a gain from noise, and at most a third."""
        if not self.early_stopping:
            return 0
        if self.validation_fraction == "auto":
            return min(max(math.ceil(0.1 * n_rows), 50), n_rows // 3)
        return min(math.ceil(self.validation_fraction * n_rows), n_rows - 1)

    def _seed(self):
        return int(check_random_state(self.random_state).randint(2**31))

    def _device(self):
        available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        if self.device == "auto":
            return torch.device(next(name for name, here in available.items() if here))
        kind, _, number = self.device.partition(":")
        if not available.get(kind) or (number and int(number) >= torch.cuda.device_count()):
            raise ValueError(
                f"device={self.device!r} is not available to PyTorch on this machine. Use device='cpu', or 'auto' for "
                "the best that is available."
            )
        return torch.device(self.device)
