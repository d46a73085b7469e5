"""The parameters that all members share: defaults, documentation, and what "auto" and None stand for."""

import math
import re
from collections.abc import Callable
from contextlib import contextmanager
from numbers import Integral, Real
from typing import TypeVar

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, InvalidParameterError, RealNotInt, StrOptions

from ._declaration import Declared, parameter
from ._layers import ACTIVATIONS

__all__ = ["SharedParameters", "unchanged_on_error", "validated"]

# Chosen by benchmarks/schedules.py.
MIN_EPOCHS, MAX_EPOCHS, MAX_ROWS = 45, 150, 450_000
# Up to so many rows a network is trained on all of them.
REFIT_ROWS = 1500


Method = TypeVar("Method", bound=Callable)


def validated(method: Method) -> Method:
    """Let a method check the parameters before it fits; a decorator of its own, as scikit-learn's has no types."""
    return _fit_context(prefer_skip_nested_validation=True)(method)


class DeviceOptions(StrOptions):
    """Names of devices, and "cuda:N" for one GPU of several."""

    def is_satisfied_by(self, val):
        return super().is_satisfied_by(val) or (isinstance(val, str) and re.fullmatch(r"cuda:\d+", val) is not None)

    def __str__(self):
        return f"{super().__str__()} or 'cuda:N' with the number N of a GPU"


class SharedParameters(Declared):
    r"""Parameters of every member, and the attributes that every fit sets.

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
        Initialization. With "pca" two are tried, as neither is best on all data: principal axes and random weights. The
        one with the lowest loss on the validation rows is kept; one that is behind by a standard error is dropped after
        each fifth of the epochs. PCA itself, in variational members probabilistic PCA, is the fallback: it is kept
        unless the network is clearly better on the validation rows than PCA of the training rows, by one standard error
        of the mean gain, or for a share of rows above one half by two of its standard errors; and better on all rows,
        as a linear network never is. Fewer than ten rows cannot tell, and PCA is kept. "random" tries random weights
        only.

    alpha : float, default=0.3
        L2 regularization: decay of the perceptrons' weight matrices, decoupled from the gradient (each step multiplies
        them by ``1 - learning rate * alpha``). The linear maps beside them do not decay, so that it draws the network
        to a linear one.

    batch_size : int or "auto", default="auto"
        Rows in a training step. "auto" is a fifth of the training rows between 64 and 128, from 6,000 rows on a 45th
        and at most 512, and all batches are about as large; in `partial_fit` it is a 40th between 32 and 512.

    learning_rate_init : float, default=0.006
        Highest learning rate of Adam. It is reached after a tenth of the steps and falls to zero as a cosine.

    max_iter : int or None, default=None
        Maximum number of epochs: passes over the training rows, for each network that is trained. None is 450,000
        divided by the number of rows, at least 45 and at most 150: 150 up to 3,000 rows, where more passes gain most
        and cost least.

    early_stopping : bool, default=True
        Whether to choose epoch and initialization by validation rows, which `cv` and `validation_fraction` set aside.
        Rows of X that are equal stay together, or those of a group, if `fit` is given `groups`; `X_val` in `fit` gives
        other rows instead. If False, all rows train and the training loss chooses.

    cv : "auto", int, cross-validation splitter, list or None, default="auto"
        How epoch and initialization are chosen. The network is then trained on all rows, by the same schedule up to the
        chosen epoch.

        - "auto": by one validation set, a tenth of the rows, at least 50 and at most a third. Folds chose no better, in
          several times the time. Beyond 1,500 rows, where a tenth more changes less than chance does, and with
          `warm_start`, whose next fit needs rows that have not trained, the network that was chosen is kept as it is.
        - int: so many folds, shuffled and with equal rows together; whole groups with `groups`. None is 5.
        - a splitter such as `TimeSeriesSplit`, which is given X, y and groups as `fit` is, or a list of pairs of
          training and test indices. They decide alone which rows stay together.

        Each fold costs the training of one network more for each initialization.

    validation_fraction : float or "auto", default="auto"
        With a float, as in MLPRegressor, that share of the rows is set aside for validation and never trains; it has no
        effect with `cv` other than "auto".

    n_iter_no_change : int, default=50
        Number of epochs without an improvement by `tol` after which training stops.

    tol : float, default=1e-4
        Smallest improvement of the validation loss that counts, as a share of the loss.

    warm_start : bool, default=False
        Whether `fit` continues training from the weights of the previous fit, with its mean and scale. Parameters that
        define the network, such as `hidden_layer_sizes`, cannot change then; an error names them. Set it before the
        first fit, so that the validation rows have not trained in one.

    categorical_features : "auto", array-like of int, str or bool, or None, default="auto"
        Which columns of X are categories: names, indices or a mask. "auto" takes those of a data frame whose dtype is
        category, string, object, bool or Enum, and those of an array of objects whose values are not numbers. None is
        none. A table with categories comes back from `inverse_transform` with its columns and dtypes.

    device : {"cpu", "cuda", "mps", "auto"} or str, default="cpu"
        Where to compute: "cuda" is the current GPU, "cuda:1" the second one; "auto" takes an accelerator if
        there is one. For tables of some thousand rows a CPU is as fast. On a GPU epochs are launched as CUDA graphs
        where the loss allows it: complete rows, without weights; results are not the bits of a CPU.

    random_state : int, RandomState instance or None, default=None
        Determines initial weights, the order of the rows and noise. An int makes results reproducible, bit for bit on
        the same machine.

    Attributes
    ----------
    module_ : torch.nn.Module
        The network, with ``encode`` and ``decode``, in float64.

    n_components_ : int
        Number of components.

    explained_variance_ : ndarray of shape (n_components_,), float64
        Variance of the reconstruction that comes from each component over the rows of `fit`, in squared units of X. For
        the decoder g, codes :math:`z_i`, their mean :math:`\bar z` and reconstructions :math:`\hat x_i` it is

        .. math:: \frac{1}{n - 1} \sum_{i=1}^n (z_{ik} - \bar z_k) \int_0^1 \frac{\partial g}{\partial z_k} (\bar z +
            t (z_i - \bar z))^T (\hat x_i - \bar x) \, dt

        what each component contributes on the way from the mean code to that of a row (Sundararajan, Taly and Yan 2017,
        "Axiomatic Attribution for Deep Networks", eq. 1). The sum over components is the variance of the
        reconstruction. Of a linear decoder with uncorrelated codes it is their variance, as PCA's
        `explained_variance_`. Of a nonlinear decoder it is computed for at most 1,000 rows, and may be negative.

        `fit` sorts components by it and gives them PCA's signs: that of the largest covariance with a feature is
        positive. Where the objective stays the same under every linear map of the code, as in AutoEncoder and
        DenoisingAutoEncoder, components are also uncorrelated, with this variance, and of all such the nearest to the
        principal components of X. Those of AdversarialAutoEncoder are rotated. With several codebooks components are
        sorted within each, and with missing cells those of variational members are not. `partial_fit` leaves the order
        as it is, and after it these two attributes are gone.

    explained_variance_ratio_ : ndarray of shape (n_components_,), float64
        `explained_variance_` divided by the variance of all features of X; of a table with categories, of the scaled
        columns and coded categories, weighted as in `score`. The sum is close to `score`, where that is R2, but not
        equal to it.

    n_iter_ : int
        Number of epochs that were tried with the initialization that is kept.

    best_iter_ : int
        Number of epochs that the network that is kept has been trained; 0 is the initialization.

    loss_curve_ : list of float
        Mean training loss of a row in each epoch that was tried, for X divided by `scale_`. With folds, the mean of
        theirs.

    validation_curve_ : list of float or None
        Mean loss of a validation row, at the initialization and after each epoch that was tried: of the networks that
        were trained without these rows. None without validation rows.

    best_loss_ : float
        Value of `validation_curve_` at `best_iter_`; without validation rows, mean loss of a training row. As an
        estimate for new rows it is too good by being the least of many, and too bad where all rows train in the end.

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
    alpha: float = parameter(Interval(Real, 0, None, closed="left"), default=0.3)
    batch_size: int | str = parameter(StrOptions({"auto"}), Interval(Integral, 1, None, closed="left"), default="auto")
    learning_rate_init: float = parameter(Interval(Real, 0, None, closed="neither"), default=0.006)
    max_iter: int | None = parameter(Interval(Integral, 1, None, closed="left"), None, default=None)
    early_stopping: bool = parameter("boolean", default=True)
    cv: object = parameter("cv_object", StrOptions({"auto"}), default="auto")
    validation_fraction: float | str = parameter(
        StrOptions({"auto"}), Interval(Real, 0, 1, closed="neither"), default="auto"
    )
    n_iter_no_change: int = parameter(Interval(Integral, 1, None, closed="left"), default=50)
    tol: float = parameter(Interval(Real, 0, None, closed="left"), default=1e-4)
    warm_start: bool = parameter("boolean", default=False)
    categorical_features: object = parameter(
        StrOptions({"auto"}), "array-like", None, default="auto", defines_network=True
    )
    device: str = parameter(DeviceOptions({"cpu", "cuda", "mps", "auto"}), default="cpu")
    random_state: object = parameter("random_state", default=None)

    def _hidden_layer_sizes(self):
        sizes = np.atleast_1d(self.hidden_layer_sizes).tolist()
        if not all(isinstance(size, Integral) and not isinstance(size, bool) and size > 0 for size in sizes):
            raise InvalidParameterError(f"hidden_layer_sizes must be integers > 0, got {self.hidden_layer_sizes}.")
        return tuple(sizes)

    def _batch_size(self, n_rows):
        """Five batches an epoch of 64 to 128 rows, more and larger ones of many rows; all of about the same size."""
        if self.batch_size != "auto":
            return self.batch_size
        size = max(64, min(n_rows // 5, 128), min(n_rows // 45, 512))
        n_batches = math.ceil(n_rows / size)
        return math.ceil(n_rows / n_batches)

    def _batch_size_of_a_pass(self, n_rows):
        """A single pass gains from more steps: about 40."""
        return self.batch_size if self.batch_size != "auto" else max(32, min(n_rows // 40, 512))

    def _max_epochs(self, n_rows):
        return self.max_iter if self.max_iter is not None else min(max(MAX_ROWS // n_rows, MIN_EPOCHS), MAX_EPOCHS)

    def _n_validation_rows(self, n_rows):
        """A tenth, but at least 50 to tell a gain from noise, and at most a third."""
        if not self.early_stopping:
            return 0
        if self.validation_fraction == "auto":
            return min(max(math.ceil(0.1 * n_rows), 50), n_rows // 3)
        return min(math.ceil(self.validation_fraction * n_rows), n_rows - 1)

    def _splits(self, X, y, groups, weights=None):
        """Number of folds, or pairs of training and validation rows by the caller's splitter; None without folds."""
        if not self.early_stopping or isinstance(self.cv, str):
            return None
        if self.warm_start:
            raise ValueError(
                "cv cannot be used with warm_start=True: all rows train, so that none could validate in the next fit. "
                "Use cv='auto', or pass X_val."
            )
        if hasattr(self.cv, "__next__"):
            raise ValueError("cv is an iterator, which only one fit could use. Pass list(cv).")
        if self.cv is None or isinstance(self.cv, Integral):
            return 5 if self.cv is None else int(self.cv)
        return list(check_cv(self.cv).split(X, y, groups))

    def _refits(self, n_rows):
        """Whether the network is trained on all rows once one validation set has chosen."""
        return self.validation_fraction == "auto" and not self.warm_start and n_rows <= REFIT_ROWS

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


@contextmanager
def unchanged_on_error(estimator):
    """Whatever is raised within, an interrupt too, the fitted attributes are as they were before."""

    def present():
        return {name: value for name, value in vars(estimator).items() if name.endswith("_")}

    before = present()
    try:
        yield
    except BaseException:
        for name in present().keys() - before.keys():
            delattr(estimator, name)
        vars(estimator).update(before)
        raise
