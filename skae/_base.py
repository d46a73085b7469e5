"""What all members share: validation, numpy <-> tensor, device, seeds, fit / partial_fit / transform / score."""

import copy
import math
import warnings
from abc import ABCMeta, abstractmethod
from contextlib import contextmanager
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score
from sklearn.utils import check_array, check_random_state, gen_batches
from sklearn.utils._param_validation import Interval, InvalidParameterError, RealNotInt, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from ._networks import ACTIVATIONS, AutoEncoderModule, principal_axes
from ._training import ROWS_AT_ONCE, adam, clear_gain, epoch, evaluate, minimize, race, reproducible, threads_for

__all__ = ["BaseAutoEncoder"]

# PCA is left for a gain on held-out rows of this many standard errors. Chosen by benchmarks/linear_floor.py: with less,
# PCA is left for worse on tables of a hundred rows; with more, gains of a tenth are missed there.
N_ERRORS = 1.0
# Fitted attributes without an underscore at their end.
PRIVATE = {"_architecture", "_n_inputs", "_n_passes", "_optimizer_state"}


class BaseAutoEncoder(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, CallbackSupportMixin, BaseEstimator, metaclass=ABCMeta
):
    """Base of all members, and the way to write one's own.

    A member states its parameters and its objective: ``_loss(module, x)`` takes a batch of centred rows, divided by one
    number, and returns one value per row, shape (batch,), summed over features and never averaged over rows. A member
    with another network overrides ``_build_module``; what that returns has ``encode`` and ``decode`` and, unless
    ``init="random"``, a ``start_at_pca`` like that of the module built here.

    While a fit runs, torch's generator and default dtype are those of the fit in the whole process, as torch has one of
    each; fits in threads take turns.

    Examples
    --------
    >>> from skae import BaseAutoEncoder
    >>> from sklearn.datasets import load_iris
    >>> class LaplaceAutoEncoder(BaseAutoEncoder):
    ...     def _loss(self, module, x):
    ...         x_hat = module.decode(module.encode(x))
    ...         return (x - x_hat).abs().sum(-1)
    >>> X = load_iris().data
    >>> LaplaceAutoEncoder(2, max_iter=2, random_state=0).fit_transform(X).shape
    (150, 2)
    """

    # Parameters that may change between calls that go on with a network; the others made it what it is.
    _of_training = frozenset(
        {
            "init",
            "alpha",
            "batch_size",
            "learning_rate_init",
            "max_iter",
            "early_stopping",
            "validation_fraction",
            "n_iter_no_change",
            "tol",
            "warm_start",
            "device",
            "random_state",
        }
    )

    _parameter_constraints: dict = {
        "n_components": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="neither"),
        ],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "init": [StrOptions({"pca", "random"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left"), None],
        "early_stopping": ["boolean"],
        "validation_fraction": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "device": [StrOptions({"cpu", "cuda", "mps", "auto"})],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components=2,
        *,
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
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.init = init
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state

    # What a member says.

    @abstractmethod
    def _loss(self, module, x):
        """Objective of each row of a batch, shape (batch,)."""

    def _build_module(self, n_features, n_components, scale):
        """The network, with random weights, for rows of X divided by scale."""
        return AutoEncoderModule(
            n_features, n_components, self._hidden_layer_sizes(), self.activation, self._probabilities()
        )

    def _probabilities(self):
        """Whether X are probabilities or bits, and the decoder gives probabilities."""
        return False

    def _starts_at_pca(self):
        """Whether a start is PCA, the floor that held-out rows have to be lifted from."""
        return self.init == "pca"

    def _check_parameters(self):
        """Raise InvalidParameterError for what no single constraint can say."""
        self._hidden_layer_sizes()

    def _centre_and_unit(self, X):
        """What is subtracted from each feature and the number that all are divided by: mean and mean deviation."""
        if self._probabilities():
            return np.zeros(X.shape[1]), 1.0
        mean = X.mean(axis=0, dtype=np.float64)
        with np.errstate(over="ignore"):
            squares = sum(np.square(X[rows] - mean).sum() for rows in gen_batches(len(X), ROWS_AT_ONCE))
        if not np.isfinite(squares):
            raise ValueError(
                f"X has values too large for {type(self).__name__}: their squares are infinite in float64. "
                "Standardize X, for example with StandardScaler."
            )
        return mean, float(np.sqrt(squares / X.size)) or 1.0

    def _standardize(self, x, mean, scale):
        """What the network sees of rows of a valid X, an array or a tensor."""
        return (x - mean) / scale

    def _principal_axes(self, x, n_axes, rows=None):
        """Those of the rows of x that `start_at_pca` of the module takes."""
        return principal_axes(x, n_axes, rows)

    def _start_at_rows(self, module, x, rows):
        """Set what a start takes from x[rows] beyond their axes; most members take nothing."""

    def _players(self, module):
        """Objectives and the optimizer of each: one, or those of a game."""
        return [(self._loss, adam(module, self.alpha))]

    def _descent(self, module, x, rows, watched, **options):
        """Iterator over epochs of training, as `minimize` is."""
        return minimize(
            self._loss,
            module,
            x,
            rows,
            watched,
            weight_decay=self.alpha,
            patience=self.n_iter_no_change,
            tol=self.tol,
            **options,
        )

    def _after_fit(self, X):
        """Set further fitted attributes, once transform works."""

    # Fitting.

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Fit the network to X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data, finite; the network is trained in float32 whatever its dtype.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        self : object
            Fitted estimator.

        Raises
        ------
        ValueError
            If X has the wrong shape, NaN, infinity or values that are too large or that the loss excludes, if the
            device is not there, or if the loss is not finite from the start. The estimator stays as it was, as it does
            after an interrupt.

        Warns
        -----
        ConvergenceWarning
            If the loss became infinite or NaN; the best weights before that are kept.
        """
        with self._unchanged_on_error():
            going_on = self.warm_start and hasattr(self, "module_")
            given, X = X, self._validate(X, reset=not going_on)
            seed = self._seed()
            fitted, x, starts = self._start(X, seed, going_on)
            fitted["n_samples_"] = len(X)
            run = self._race(given, given if y is None else y, fitted, x, starts, seed, going_on)
            if not math.isfinite(float(run.best.mean())):
                raise ValueError(
                    f"The loss of {type(self).__name__} is not finite at the start. Standardize X, for example with "
                    "StandardScaler, and check the parameters of the loss."
                )
            if run.diverged:
                warnings.warn(
                    f"The loss of {type(self).__name__} was not finite in epoch {len(run.loss_curve)}; the weights of "
                    f"epoch {run.best_epoch} are kept. Lower learning_rate_init or alpha, or standardize X.",
                    ConvergenceWarning,
                    stacklevel=3,
                )
            fitted |= self._network(run.module) | {
                "n_iter_": len(run.loss_curve),
                "best_iter_": run.best_epoch,
                "loss_curve_": run.loss_curve,
                "validation_curve_": run.watched_curve if self._n_held_out(len(X)) else None,
                "best_loss_": float(run.best.mean()),
                "_n_passes": 0,
                "_optimizer_state": {},
            }
            vars(self).update(fitted)
            self._after_fit(X)
        return self

    def _race(self, X, y, fitted, x, starts, seed, going_on):
        """Train from every start, telling the callbacks after every epoch; the run to keep."""
        with reproducible(seed, x.device):
            order = torch.randperm(len(x)).to(x.device)
        n_held_out = self._n_held_out(len(x))
        rows, watched = order[n_held_out:], order[:n_held_out] if n_held_out else order
        max_epochs = self._max_epochs(len(x))
        context = self._init_callback_context(max_subtasks=len(starts) * max_epochs)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        batch_size = self._batch_size(len(rows))
        floor = copy.deepcopy(starts[0])
        if not going_on:
            with reproducible(seed, x.device):
                self._start_at_rows(floor, x, order)
                for module in starts:
                    self._start_at_rows(module, x, rows)
        options = dict(seed=seed, batch_size=batch_size, learning_rate=self.learning_rate_init, max_epochs=max_epochs)
        with reproducible(seed, x.device, threads_for(floor, batch_size)):
            run, first = race(
                [self._descent(module, x, rows, watched, **options) for module in starts],
                max_epochs,
                lambda module: self._tell_callbacks(context, X, y, fitted, module),
            )
            from_pca = self._starts_at_pca() and self.early_stopping and not going_on
            if from_pca and not self._beats_pca(run, floor, x, rows, watched):
                run, first.module, first.best_epoch, first.best = first, floor, 0, first.first
        context.call_on_fit_task_end(
            estimator=self, X=X, y=y, reconstruction_attributes=lambda: fitted | self._network(run.module)
        )
        return run

    def _tell_callbacks(self, context, X, y, fitted, module):
        """One task for an epoch; what a callback wants to score is made only if it asks."""
        task = context.subcontext(task_name="epoch").call_on_fit_task_begin(estimator=self)
        task.call_on_fit_task_end(
            estimator=self,
            X=X,
            y=y,
            reconstruction_attributes=lambda: fitted | self._network(copy.deepcopy(module)),
        )

    def _beats_pca(self, run, floor, x, rows, watched):
        """Whether the held-out rows are clearly better off than with PCA of the training rows.

        Not with PCA of all rows, where training starts: it knows the held-out ones.
        """
        pca = copy.deepcopy(floor)
        pca.start_at_pca(_float32(self._principal_axes(x, pca.n_components, rows).first(pca.n_components)))
        self._start_at_rows(pca, x, rows)
        return clear_gain(evaluate(self._loss, pca, x, watched), run.best, N_ERRORS)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None):
        """Go on from the present weights with one pass over the rows of X.

        The first call sets mean, scale and axes from the rows it is given; it may follow `fit`. The learning rate is
        `learning_rate_init` throughout, no row is held out and the last weights are kept: `best_iter_` and
        `best_loss_` are the last epoch and its training loss.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to learn from.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        self : object
            Fitted estimator.

        Raises
        ------
        ValueError
            If X is not valid, if parameters that made the network were changed, or if the weights became infinite or
            NaN; the estimator stays as it was.
        """
        with self._unchanged_on_error():
            going_on = hasattr(self, "module_")
            X = self._validate(X, reset=not going_on)
            seed = (self._seed() + getattr(self, "_n_passes", 0)) % 2**31
            fitted, x, (module, *_) = self._start(X, seed, going_on)
            if not going_on:
                with reproducible(seed, x.device):
                    self._start_at_rows(module, x, torch.arange(len(x), device=x.device))
            loss, optimizers = self._pass(module, x, seed)
            n_iter = getattr(self, "n_iter_", 0) + 1
            fitted |= self._network(module) | {
                "n_samples_": getattr(self, "n_samples_", 0) + len(X),
                "n_iter_": n_iter,
                "best_iter_": n_iter,
                "loss_curve_": [*getattr(self, "loss_curve_", []), loss],
                "validation_curve_": getattr(self, "validation_curve_", None),
                "best_loss_": loss,
                "_n_passes": getattr(self, "_n_passes", 0) + 1,
                "_optimizer_state": _optimizer_arrays(optimizers),
            }
            vars(self).update(fitted)
            self._after_fit(X)
        return self

    def _pass(self, module, x, seed):
        """One pass over x; its loss and the optimizers, which go on where the last call of partial_fit left them."""
        batch_size = self._batch_size(len(x))
        with reproducible(seed, x.device, threads_for(module, batch_size)):
            players = self._players(module)
            optimizers = [optimizer for _, optimizer in players]
            _load_optimizer_arrays(optimizers, getattr(self, "_optimizer_state", {}))
            rows = torch.arange(len(x), device=x.device)
            loss = epoch(players, module, x, rows, batch_size, lambda _: self.learning_rate_init)
        if not math.isfinite(loss) or not all(bool(weights.isfinite().all()) for weights in module.parameters()):
            raise ValueError(
                f"The loss of {type(self).__name__} is not finite in partial_fit, which is undone. Lower "
                "learning_rate_init or standardize X."
            )
        return loss, optimizers

    def _start(self, X, seed, going_on):
        """Fitted attributes of the standardization, X standardized on the device, and the modules to start from."""
        self._check_parameters()
        if going_on:
            self._check_same_network()
        mean, scale = (self.mean_, self.scale_) if going_on else self._centre_and_unit(X)
        device = self._device()
        x = np.empty(X.shape, dtype=np.float32)
        for rows in gen_batches(len(X), ROWS_AT_ONCE):
            x[rows] = self._standardize(X[rows], mean, scale)
        x = torch.from_numpy(x).to(device)
        if going_on:
            starts = [copy.deepcopy(self.module_).to(device, torch.float32)]
        else:
            starts = self._new_starts(x, scale, seed)
        return {"mean_": mean, "scale_": scale}, x, starts

    def _check_same_network(self):
        now = self.get_params(deep=False)
        changed = [name for name, value in self._architecture.items() if not np.array_equal(now[name], value)]
        if changed:
            raise ValueError(
                f"{type(self).__name__} goes on with the network that it has, but {', '.join(changed)} changed since "
                "it was made. Set them back, or fit anew with warm_start=False."
            )

    def _new_starts(self, x, scale, seed):
        """With init="pca", the linear start and a random one to race it; a linear network needs no rival."""
        by_share = not isinstance(self.n_components, Integral)
        n_components = self.n_components if by_share else int(self.n_components)
        from_pca = self._starts_at_pca()
        if by_share or from_pca:
            with reproducible(seed, x.device):
                pca = self._principal_axes(x, min(x.shape) if by_share else n_components)
        if by_share:
            share = np.cumsum(pca.variances.numpy(force=True)) / (pca.total or 1.0)
            n_components = max(1, min(int(np.searchsorted(share, n_components, side="right")) + 1, len(share)))
        starts = []
        if from_pca:
            starts.append(self._new_module(x, n_components, scale, seed))
            if not hasattr(starts[0], "start_at_pca"):
                raise ValueError(
                    f"The module of {type(self).__name__} has no start_at_pca, as init='pca' needs. Use init='random'."
                )
            starts[0].start_at_pca(_float32(pca.first(n_components)))
        if not from_pca or self._hidden_layer_sizes():
            starts.append(self._new_module(x, n_components, scale, seed))
        return starts

    def _new_module(self, x, n_components, scale, seed):
        with reproducible(seed, x.device):
            module = self._build_module(x.shape[1], n_components, scale).to(x.device, torch.float32)
        module.n_components, module.n_inputs = n_components, x.shape[1]
        return module

    def _network(self, module):
        """Fitted attributes of a trained network."""
        return {
            "module_": _for_inference(module),
            "n_components_": module.n_components,
            "_n_inputs": module.n_inputs,
            "_architecture": {k: v for k, v in self.get_params(deep=False).items() if k not in self._of_training},
        }

    @contextmanager
    def _unchanged_on_error(self):
        """Whatever is raised within, an interrupt too, the fitted attributes are as they were before."""
        before = self._fitted()
        try:
            yield
        except BaseException:
            for name in self._fitted().keys() - before.keys():
                delattr(self, name)
            vars(self).update(before)
            raise

    def _fitted(self):
        """Fitted attributes, public and private."""
        return {name: value for name, value in vars(self).items() if name.endswith("_") or name in PRIVATE}

    def _hidden_layer_sizes(self):
        sizes = np.atleast_1d(self.hidden_layer_sizes).tolist()
        if not all(isinstance(size, Integral) and size > 0 for size in sizes):
            raise InvalidParameterError(f"hidden_layer_sizes must be integers > 0, got {self.hidden_layer_sizes}.")
        return tuple(sizes)

    def _batch_size(self, n_rows):
        """A fit takes about the same number of steps whatever the number of rows: 40 an epoch."""
        return self.batch_size if self.batch_size != "auto" else max(32, min(n_rows // 40, 512))

    def _max_epochs(self, n_rows):
        """Few rows are passed over more often: 400,000 rows in all, between 55 and 100 epochs."""
        return self.max_iter if self.max_iter is not None else min(max(400_000 // n_rows, 55), 100)

    def _n_held_out(self, n_rows):
        """Rows held out: a tenth, but at least 50 to tell a gain from noise, and at most a third."""
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
        if not available[self.device]:
            raise ValueError(
                f"device={self.device!r} is not available to PyTorch on this machine. Use device='cpu', or 'auto' for "
                "the best there is."
            )
        return torch.device(self.device)

    # Using the fitted network.

    def transform(self, X):
        """Encode X.

        Deterministic and computed in float64, so that a row's code does not depend on the rows beside it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data to encode.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_components_), float32 for float32 X and float64 otherwise
            Codes.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X has another number of features than in `fit`, or NaN or infinity.
        """
        X = self._validate(X)
        return self._map(X, self._encode, self.n_components_)

    def inverse_transform(self, X):
        """Decode codes, back in the units of the training data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components_)
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
        return self._map(self._validate_codes(X), self._decode, self.n_features_in_)

    def _validate_codes(self, X):
        check_is_fitted(self)
        X = check_array(X, dtype=[np.float64, np.float32], input_name="X")
        if X.shape[1] != self.n_components_:
            raise ValueError(
                f"X has {X.shape[1]} columns, but {type(self).__name__}.inverse_transform is expecting "
                f"n_components_={self.n_components_}: codes as transform returns them."
            )
        return X

    def score_samples(self, X):
        """Minus the squared error of each row's reconstruction, in squared units of X: higher is more normal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data to score.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
            Minus the sum over features of the squared differences.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X is not valid.
        """
        X = self._validate(X)
        return self._map(X, self._minus_squared_error, None)

    def score(self, X, y=None):
        """R2 of the reconstruction: one less the share of the variance of X, over all features, left unexplained.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data to reconstruct.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        score : float
            ``r2_score(X, inverse_transform(transform(X)), multioutput="variance_weighted")``; 1 is perfect. Of one row
            it is NaN, with a warning.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X is not valid.
        """
        X = self._validate(X)
        X_hat = self._map(X, lambda x: self._decode(self._encode(x)), self.n_features_in_)
        return r2_score(X, X_hat, multioutput="variance_weighted")

    def _validate(self, X, reset=False):
        if not reset:
            check_is_fitted(self)
        X = validate_data(self, X, reset=reset, dtype=[np.float64, np.float32])
        self._check_unit_interval(X, reset)
        return X

    def _check_unit_interval(self, X, reset):
        probabilities = self._probabilities() if reset else getattr(self.module_, "probabilities", False)
        if probabilities and (X.min() < 0 or X.max() > 1):
            raise ValueError(
                f"X must be in [0, 1] where the decoder of {type(self).__name__} gives probabilities, got values from "
                f"{X.min():g} to {X.max():g}. Scale it, for example with MinMaxScaler(clip=True)."
            )

    def _map(self, array, function, n_columns):
        """Apply a function of float64 tensors to the rows of an array, in pieces; dtype as array, float64 if 1-D."""
        device = next(self.module_.parameters()).device
        shape, dtype = ((len(array),), np.float64) if n_columns is None else ((len(array), n_columns), array.dtype)
        out = np.empty(shape, dtype=dtype)
        with torch.inference_mode():
            for rows in gen_batches(len(array), ROWS_AT_ONCE):
                piece = torch.from_numpy(array[rows].astype(np.float64)).to(device)
                out[rows] = function(piece).numpy(force=True)
        return out

    def _tensor(self, array, like):
        return torch.as_tensor(array, dtype=like.dtype, device=like.device)

    def _standardized(self, x):
        """What the fitted network sees of rows of a valid X, a tensor."""
        return self._standardize(x, self._tensor(self.mean_, x), self.scale_)

    def _encode(self, x):
        return self.module_.encode(self._standardized(x)) * self._code_unit()

    def _decode(self, z):
        return self.module_.decode(z / self._code_unit()) * self.scale_ + self._tensor(self.mean_, z)

    def _code_unit(self):
        """What the module's codes are multiplied by: here units that make them as large as PCA's of X."""
        return self.scale_ * getattr(self.module_, "code_scale", 1.0)

    def _minus_squared_error(self, x):
        return -(x - self._decode(self._encode(x))).square().sum(-1)

    # scikit-learn's protocols.

    @property
    def _n_features_out(self):
        return self.n_components_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __getstate__(self):
        state = super().__getstate__().copy()
        if isinstance(state.get("module_"), torch.nn.Module):
            arrays = {name: value.numpy(force=True) for name, value in state["module_"].state_dict().items()}
            # exact: the weights were float32 in training
            state["module_"] = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in arrays.items()}
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        if isinstance(getattr(self, "module_", None), dict):
            arrays, builder = self.module_, type(self)(**self._architecture)
            vars(builder).update({name: value for name, value in self._fitted().items() if name != "module_"})
            with torch.device("meta"):  # nothing is drawn, so that no generator is touched
                module = builder._build_module(self._n_inputs, self.n_components_, self.scale_)
            module.load_state_dict({name: torch.tensor(value) for name, value in arrays.items()}, assign=True)
            module.n_components, module.n_inputs = self.n_components_, self._n_inputs
            try:
                device = self._device()
            except ValueError:  # fitted on an accelerator that this machine does not have
                device = torch.device("cpu")
            self.module_ = _for_inference(module.to(device))


def checked_draws(n_samples, random_state):
    """Number of rows to draw, and the generator to draw them with."""
    if not isinstance(n_samples, Integral) or n_samples < 1:
        raise ValueError(f"n_samples must be an integer of at least 1, got {n_samples!r}.")
    return int(n_samples), check_random_state(random_state)


def _for_inference(module):
    """The module as it is used after training, in float64; mps has none."""
    device = next(module.parameters()).device
    return module.eval().to(device if device.type != "mps" else "cpu", torch.float64)


def _float32(pca):
    """Principal axes as a module takes them; on whatever device they are copied to."""
    return pca._replace(mean=pca.mean.float(), axes=pca.axes.float(), variances=pca.variances.float())


def _optimizer_arrays(optimizers):
    """The states of optimizers as arrays, by the place of the optimizer and of the weights: ``"0.3"``."""
    return {
        f"{place}.{i}": {name: value.numpy(force=True) for name, value in state.items()}
        for place, optimizer in enumerate(optimizers)
        for i, state in optimizer.state_dict()["state"].items()
    }


def _load_optimizer_arrays(optimizers, arrays):
    for place, optimizer in enumerate(optimizers):
        state = {
            int(key.split(".")[1]): {name: torch.tensor(value) for name, value in values.items()}
            for key, values in arrays.items()
            if key.startswith(f"{place}.")
        }
        if state:
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
