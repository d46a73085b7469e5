"""The base of all members: scikit-learn's contract, and what happens in fit, partial_fit and transform."""

import copy
import math
import warnings
from abc import ABCMeta, abstractmethod
from functools import partial
from typing import Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import ConvergenceWarning

from ._adam import Averaged, adam
from ._data import all_of, data_of, facts_of, given_validation, sample_and_folds
from ._distributed import agreement, alone, of_first, one_fit, share, total
from ._fitted import FittedNetwork, for_inference
from ._initialization import Initialization
from ._memory import check_memory
from ._networks import AutoEncoderModule
from ._ordering import ordered
from ._parameters import SharedParameters, unchanged_on_error, validated
from ._rows import Sample, checked_groups, checked_weights, stacked
from ._saving import load_optimizer_arrays, optimizer_arrays
from ._scaling import Scaler, warn_of_another_scale
from ._selection import select_and_train
from ._stack import folds_together
from ._tables import scaler_for
from ._training import Schedule, memory_errors_explained, ordinary_modes, train_pass

__all__ = ["BaseAutoEncoder"]

# Rows of partial_fit whose mean, scale and axes are kept up to date; chosen by benchmarks/first_rows.py.
FIRST_ROWS = 1000
# Passes over them once they are complete, chosen in the same way.
FIRST_PASSES = 30


class BaseAutoEncoder(SharedParameters, FittedNetwork, CallbackSupportMixin, BaseEstimator, metaclass=ABCMeta):
    """Base of all members, and the way to write one's own.

    A member declares its parameters and its objective: ``_loss(module, x)`` takes a batch of scaled rows (less their
    mean, divided by one number) and returns one value per row, shape (batch,), summed over features, not averaged over
    rows: a function of both and of parameters, as one call may be for many networks. What else a member may override:

    - ``_build_module(n_features, n_components, scale)``: a network of its own, with ``encode`` and ``decode`` and,
      unless ``init="random"``, ``initialize(x, rows, axes)``. With ``code_map`` and ``map_code`` its components are put
      in order. A pickle has its parameters and buffers, and the network is built again to read it: register what
      training changes, and draw from torch's generator only.
    - ``_build_scaler()``: what X is to the network.
    - ``_optimizers(module)``: pairs of a loss and its optimizer. Several step in turn on every batch, and the last
      epoch is kept.
    - ``_training_rows(x, sample, y)``: what batches are taken from, where a row is to bring others with it.
    - ``_encode(x)``: codes of rows of X, where they are not those of the network alone.
    - ``_batch_size(n_rows)``, ``_max_epochs(n_rows)``: what ``batch_size="auto"`` and ``max_iter=None`` stand for.
    - ``_check_parameters()``: raise InvalidParameterError for what the constraint of one parameter cannot say.
    - ``_after_fit(X, sample_weight)``: set further fitted attributes, once ``transform`` works.

    While an epoch runs, torch's generator and default dtype are those of the fit in the whole process, as torch has one
    of each; fits in threads take turns.

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

    # What a member may override.

    @abstractmethod
    def _loss(self, module, x):
        """Objective of each row of a batch, shape (batch,)."""

    def _build_module(self, n_features, n_components, scale, **options):
        """The network, with random weights, for rows of X divided by scale; options: columns, if X is a table."""
        return AutoEncoderModule(n_features, n_components, self._hidden_layer_sizes(), self.activation, **options)

    def _build_scaler(self):
        """The scaler, before it has seen X."""
        return Scaler()

    def _optimizers(self, module):
        """Pairs of a loss and the optimizer that steps down it."""
        return [(self._loss, adam(module, self.alpha))]

    def _training_rows(self, x, sample, y):
        """What a batch is taken from, as x[rows]: the scaled rows x of a sample; y: target that `fit` was given."""
        return x

    def _check_parameters(self):
        """Raise InvalidParameterError for what the constraint of one parameter cannot say."""
        self._hidden_layer_sizes()

    def _after_fit(self, X, sample_weight):
        """Set further fitted attributes, once transform works; sample_weight: (n_samples,), or None."""

    # Fitting.

    @validated
    def fit(self, X, y=None, sample_weight=None, *, groups=None, X_val=None, sample_weight_val=None) -> Self:
        """Fit the network to X.

        If `torch.distributed` has a process group, all its processes call `fit` together, each with rows of its own as
        X, as sample_weight and as X_val: the fit is one of all rows, and all processes end with the same.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data, finite or NaN where a cell is missing; the network is trained in float32 whatever its dtype.
            Of a sparse X only the rows of a batch are ever dense. A memory map of 128 MB or more is read in blocks in
            random order, whose rows are shuffled; at most 20,000 rows validate then, and equal rows are not joined.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            How much each row counts: in the mean, in PCA, in the loss and on the validation rows. A weight of two is a
            row given twice, zero one left out. None is one for each.
        groups : array-like of shape (n_samples,), default=None
            Rows of the same group are all training rows or all validation rows, such as those of one patient. None
            keeps only equal rows together. A splitter as `cv` is given them, and decides.
        X_val : {array-like, sparse matrix} of shape (n_validation, n_features), default=None
            Validation rows; all rows of X train then. In a pipeline, ``transform_input=["X_val"]`` transforms them as
            X. None sets rows of X aside, as `validation_fraction` says.
        sample_weight_val : array-like of shape (n_validation,), default=None
            How much each row of `X_val` counts.

        Returns
        -------
        self : object
            Fitted estimator.

        Raises
        ------
        ValueError
            If X has the wrong shape, NaN, infinity or values that are too large or that the loss excludes, if weights,
            groups or X_val are not valid, if the device is not available, or if the loss is not finite at the
            initialization. The estimator stays as it was, as it does after an interrupt.
        MemoryError
            Before the fit begins, if it clearly needs more memory than there is, with what to change; where the
            system tells how much there is, as Linux and CUDA do.
        torch.OutOfMemoryError
            If the device runs out of memory all the same.
        RuntimeError
            If another process of a group failed or ended.

        Warns
        -----
        ConvergenceWarning
            If the loss became infinite or NaN; the best weights before that are kept.
        """
        with one_fit(self), unchanged_on_error(self), memory_errors_explained(), ordinary_modes():
            continuing = self.warm_start and hasattr(self, "module_")
            with agreement() as facts:
                weights = checked_weights(sample_weight, X)
                scaler, valid = self._check(X, continuing)
                held_out = given_validation(self, scaler, X_val, sample_weight_val)
                groups, seed = checked_groups(groups, valid), self._seed()
                splits = self._splits(X, y, groups, weights) if held_out is None else None
                sample, folds = sample_and_folds(valid, weights, groups, splits, seed)
                facts |= facts_of(self, scaler, sample, held_out, groups, splits)
            seed = of_first(seed)
            if not continuing:
                scaler.fit(sample.X, sample.weights)
                scaler.expect(held_out)
            n_beside, n_folds = 0 if held_out is None else held_out.X.shape[0], len(folds or [0])
            with agreement():
                check_memory(self, scaler, sample.X, n_beside, n_folds, seed, continuing)
            data = data_of(self, sample, folds, held_out, scaler, seed)
            data = data._replace(batches_from=self._training_rows(data.x, sample, y))
            network_seed = self._network_seed_ if continuing else seed
            attributes = partial(self._attributes, scaler, network_seed, total(valid.shape[0]))
            initial = self._initial_networks(scaler, data, seed, continuing)
            with folds_together(len(data.folds)):
                network, results = self._train(*initial, data, seed, (X, y, sample_weight), attributes)
            self._adopt(attributes(network) | results)
            self._after_fit(valid, weights)
        return self

    @validated
    def partial_fit(self, X, y=None, sample_weight=None) -> Self:
        """Continue from the present weights with one pass over the rows of X.

        Mean, scale and axes follow the first 1000 rows: until there are so many, each call keeps its rows, sets mean,
        scale and the initial weights anew from all rows so far, and passes once over all of them; the call with which
        there are 1000 passes over them 30 times, over more rows as much less often. What earlier calls have trained is
        dropped then. After that, or after `fit`, mean and scale stay and training goes on. The learning rate is
        `learning_rate_init` throughout, there are no validation rows, and the weights are averages over the last ninth
        of the steps: `best_iter_` and `best_loss_` are the last epoch and its training loss.

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
            If X or sample_weight is not valid, if parameters that define the network have changed, or if the weights
            became infinite or NaN; the estimator stays as it was.

        Warns
        -----
        UserWarning
            If the rows are ten times as large as those that set mean and scale, or a tenth.
        """
        with unchanged_on_error(self), memory_errors_explained(), ordinary_modes():
            alone("partial_fit")
            continuing, n_passes = hasattr(self, "module_"), getattr(self, "_n_passes_", 0)
            weights = checked_weights(sample_weight, X)
            scaler, valid = self._check(X, continuing)
            sample, seed = Sample(valid, weights), (self._seed() + n_passes) % 2**31
            network_seed, first = self._network_seed_ if continuing else seed, getattr(self, "_first_rows_", None)
            if first is not None:
                sample = stacked(Sample(**first), sample)
            follows = first is not None or not continuing
            if follows:
                scaler = copy.copy(scaler).fit(sample.X, sample.weights)
            data = all_of(sample, scaler, self._device())
            if follows:
                network = self._initialization(scaler, data, network_seed).network()
            else:
                warn_of_another_scale(type(self).__name__, scaler, data)
                network = _for_training(self.module_, data.x.device)
            data = data._replace(batches_from=self._training_rows(data.x, sample, None))
            keeps = follows and len(data.rows) < FIRST_ROWS
            many = max(1, FIRST_PASSES * FIRST_ROWS // len(data.rows)) if follows and not keeps else 1
            state = {} if follows else self._optimizer_state_
            losses, optimizer_state = self._passes(network, data, seed, state, many)
            n_iter, n_samples = getattr(self, "n_iter_", 0) + many, getattr(self, "n_samples_", 0) + valid.shape[0]
            results = {
                "n_iter_": n_iter,
                "best_iter_": n_iter,
                "loss_curve_": [*getattr(self, "loss_curve_", []), *losses],
                "validation_curve_": getattr(self, "validation_curve_", None),
                "best_loss_": losses[-1],
                "_n_passes_": n_passes + 1,
                "_optimizer_state_": {} if keeps else optimizer_state,
                "_first_rows_": sample._asdict() if keeps else None,
                "_explained_": None,
            }
            self._adopt(self._attributes(scaler, network_seed, n_samples, network) | results)
            self._after_fit(sample.X, sample.weights)
        return self

    def _check(self, X, continuing):
        """The scaler, not yet fitted unless training continues, and X as the scaler takes it."""
        scaler = self._scaler_ if continuing else scaler_for(self, X)
        X = scaler.validate(self, X, reset=not continuing)
        self._check_parameters()
        if continuing:
            self._check_same_network()
        return scaler, X

    def _check_same_network(self):
        now = self.get_params(deep=False)
        then = self._parameters_of_fit_
        changed = [name for name in self._defining_parameters() if not np.array_equal(now[name], then[name])]
        if changed:
            verbs, them = ("defines", "has"), "it"
            if len(changed) > 1:
                verbs, them = ("define", "have"), "them"
            raise ValueError(
                f"Cannot continue training: {', '.join(changed)} {verbs[0]} the network and {verbs[1]} changed. Set "
                f"{them} back or use fit with warm_start=False."
            )

    def _initial_networks(self, scaler, data, seed, continuing):
        """A function of the initialization and of rows (None for all) that gives a network; the initializations, of
        which the first of several is the fallback; and the principal axes of all rows, if they are known.
        """
        if continuing:
            return lambda init, rows: share(_for_training(self.module_, data.x.device)), ("present",), None
        initialization = self._initialization(scaler, data, seed)
        # a linear network at PCA is at its optimum
        compete = bool(self._hidden_layer_sizes()) and not getattr(initialization.random, "starts_once", False)
        inits = ("pca", "random")[: 1 + compete] if initialization.from_pca else ("random",)
        return initialization.network, inits, initialization.axes

    def _initialization(self, scaler, data, seed):
        build = partial(self._new_network, scaler, seed, data.x.device)
        return Initialization(build, data, self.n_components, self.init, seed)

    def _train(self, network_for, inits, axes, data, seed, given, attributes):
        """Train, with a task of scikit-learn's callbacks for each epoch of each network; the one to keep, results."""
        (X, y, sample_weight), n_epochs = given, self._max_epochs(total(len(data.rows)))
        options = dict(estimator=self, X=X, y=X if y is None else y)  # scorers of callbacks refuse y=None
        if sample_weight is not None:
            options["metadata"] = {"sample_weight": sample_weight}
        with agreement():
            context = self._init_callback_context(max_subtasks=n_epochs * (len(inits) * len(data.folds) + data.refit))

        def begin(progress):
            self._progress = progress  # for a callback that writes it to a file
            try:
                context.call_on_fit_task_begin(**options)
            finally:
                del self._progress

        def after_epoch(network):
            task = context.subcontext(task_name="epoch").call_on_fit_task_begin(estimator=self)
            task.call_on_fit_task_end(reconstruction_attributes=lambda: attributes(copy.deepcopy(network)), **options)

        network, run = select_and_train(
            network_for,
            inits,
            self._optimizers,
            data,
            Schedule(n_epochs, self.learning_rate_init, self._batch_size, seed),
            patience=self.n_iter_no_change,
            tol=self.tol,
            begin=begin,
            after_epoch=after_epoch,
        )
        results = self._results(run, data.validates)
        is_ordered = inits[0] == "pca" or (inits[0] == "present" and getattr(self, "_explained_", None) is not None)
        keeps_axes = run.best_epoch == 0 and is_ordered
        network, results["_explained_"] = ordered(network, axes, data, self._loss, seed, keeps_axes)
        context.call_on_fit_task_end(reconstruction_attributes=lambda: attributes(network), **options)
        return share(network), results

    def _passes(self, network, data, seed, optimizer_state, n_passes):
        """Passes over the rows; their losses, and the states of the optimizers, with which the next pass continues."""
        pairs = [(loss, Averaged(optimizer)) for loss, optimizer in self._optimizers(network)]
        optimizers = [optimizer for _, optimizer in pairs]
        load_optimizer_arrays(optimizers, optimizer_state)
        batch_size, rate = self._batch_size_of_a_pass(len(data.x)), self.learning_rate_init
        losses = [train_pass(pairs, network, data, seed + i * 2**32, batch_size, rate) for i in range(n_passes)]
        if not math.isfinite(sum(losses)):
            raise ValueError(
                f"The loss of {type(self).__name__} is not finite in partial_fit, which is undone. Lower "
                "learning_rate_init or standardize X."
            )
        state = optimizer_arrays(optimizers)
        for optimizer in optimizers:
            optimizer.take_averages()
        return losses, state

    def _attributes(self, scaler, seed, n_samples, network):
        """Fitted attributes of a network: what transform needs, and what builds it again from a pickle."""
        return scaler.learned() | {
            "module_": for_inference(network),
            "n_components_": network.n_components,
            "n_samples_": n_samples,
            "_scaler_": scaler,
            "_network_seed_": seed,
            "_parameters_of_fit_": self.get_params(deep=False),
        }

    def _results(self, run, validated):
        """Fitted attributes of the training in `fit`, if it went well; ConvergenceWarning if it did so at first."""
        name, best_loss = type(self).__name__, run.validation_curve[run.best_epoch]
        if not math.isfinite(best_loss) or math.isnan(run.validation_curve[0]):
            raise ValueError(
                f"The loss of {name} is not finite at the initialization. Standardize X, for example with "
                "StandardScaler, and check the parameters of the loss."
            )
        if run.diverged_in is not None:
            warnings.warn(
                f"The loss of {name} was not finite in epoch {run.diverged_in}; the weights of epoch "
                f"{run.best_epoch} are kept. Lower learning_rate_init or alpha, or standardize X.",
                ConvergenceWarning,
                stacklevel=4,
            )
        return {
            "n_iter_": len(run.loss_curve),
            "best_iter_": run.best_epoch,
            "loss_curve_": run.loss_curve,
            "validation_curve_": run.validation_curve if validated else None,
            "best_loss_": best_loss,
            "_n_passes_": 0,
            "_optimizer_state_": {},
            "_first_rows_": None,
        }

    def _adopt(self, fitted):
        """The one place where fit and partial_fit write attributes; `_after_fit` adds those of a member."""
        vars(self).update(fitted)


def _for_training(module, device):
    return copy.deepcopy(module).to(device, torch.float32)
