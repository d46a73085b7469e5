"""The choice of initialization and epoch by rows that do not train, and the network that follows from it."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor, nn

from ._distributed import agreement, gathered
from ._mapped import indices
from ._progress import Progress
from ._saving import load_state, state
from ._training import WARM_UP, Data, Epoch, Loss, Pair, Schedule, evaluate, reproducible, threads_for, train

__all__ = ["LEAST_ROWS", "Run", "choose", "is_clearly_better", "lowers_the_loss", "refit", "select", "select_and_train"]

# A comparison of the losses of fewer rows than this decides nothing.
LEAST_ROWS = 10
# The fallback is left for a gain of this many standard errors. Chosen by benchmarks/pca_fallback.py: with less, PCA is
# left for worse on tables of a hundred rows; with more, gains of a tenth are missed there.
FALLBACK_ERRORS = 1.0
# An initialization that is behind by so many is trained no further.
DROP_ERRORS = 1.0
# Where no loss chooses, so many rows tell whether an epoch has left weights that are of use.
FEW_ROWS = 256
# Of the noise of a loss of all rows: the epoch was chosen with that of seed 0.
OTHER_SEED = 1


def select(losses: Sequence[Tensor], n_errors: float | None = None) -> int:
    """Place of the lowest mean loss: the one rule by which epochs and initializations are chosen.

    losses: those of the same rows for each choice, each of shape (n_rows,). With n_errors the first is left only for a
    clear gain: the mean gain is more than n_errors of its standard errors or, as a few extreme rows can dominate any
    mean, the share of rows that gain exceeds one half by twice as many of its own.
    """
    means = [float(values.mean().nan_to_num(nan=math.inf)) for values in losses]
    best = means.index(min(means))
    if n_errors is None or best == 0:
        return best
    gain = losses[0] - losses[best]
    if len(gain) < LEAST_ROWS or not bool(gain.mean() > 0):
        return 0
    by_mean = gain.mean() / gain.std() * math.sqrt(len(gain))
    by_rows = ((gain > 0).double().mean() - 0.5) / 0.5 * math.sqrt(len(gain))
    return best if bool((by_mean > n_errors) | (by_rows > 2 * n_errors)) else 0


@dataclass(eq=False)  # a run is equal to itself only: comparing fields would compare tensors
class Run:
    """The training of one initialization, with a network for each fold, and its curves so far.

    networks: of each fold a network and its pairs of a loss and an optimizer. initial and best are the losses of all
    validation rows, at the initialization, which is epoch 0, and at best_epoch. validation_curve has their means from
    epoch 0 on, loss_curve the mean losses during each epoch. Weights are kept only if there is no refit. last: whether
    they are those of the last epoch, whatever the losses. diverged_in: the epoch whose loss was not finite.
    """

    networks: list[tuple[nn.Module, list[Pair]]]
    keeps: bool = True
    last: bool = False
    initial: Tensor = field(init=False)
    best: Tensor = field(init=False)
    weights: dict[str, Tensor] | None = None
    best_epoch: int = 0
    loss_curve: list[float] = field(default_factory=list)
    validation_curve: list[float] = field(default_factory=list)
    n_waited: int = 0
    diverged_in: int | None = None

    @property
    def network(self) -> nn.Module:
        """The network of the first fold: the only one, unless there are folds to choose by."""
        return self.networks[0][0]

    @property
    def keeps_last(self) -> bool:
        """Whether no loss tells which epoch or network is ahead: one is trained, and its last weights are kept.

        So it is where several optimizers step in turn, each down its own loss and perhaps up another's.
        """
        return self.last or len(self.networks[0][1]) > 1

    def begin(self, losses: Tensor) -> None:
        """Note the losses of the validation rows at the initialization."""
        self.initial = self.best = losses
        self.validation_curve.append(float(self.initial.mean()))
        self._keep()

    def record(self, loss: float, losses: Tensor, tol: float, patient: bool) -> None:
        """Note an epoch: its training loss and the losses of the validation rows; its weights, if they are to keep."""
        best, mean = float(self.best.mean()), float(losses.mean())
        self.loss_curve.append(loss)
        self.validation_curve.append(mean)
        if not (math.isfinite(loss) and math.isfinite(mean)):
            self.diverged_in = len(self.loss_curve)
            return
        if not self.keeps_last:
            self.n_waited = 0 if mean < best - tol * abs(best) else self.n_waited + (not patient)
        if self.keeps_last or select([self.best, losses]) == 1:
            self.best, self.best_epoch = losses, len(self.loss_curve)
            self._keep()

    def at_initialization(self) -> "Run":
        """The same run with its initialization as what is kept."""
        run = copy.copy(self)
        run.best_epoch, run.best = 0, self.initial
        return run

    def _keep(self) -> None:
        if self.keeps:
            self.weights = _copy(self.network)


def choose(
    runs: list[Run],
    data: Data,
    schedule: Schedule,
    *,
    patience: int | None,
    tol: float | None,
    after_epoch: Callable[[nn.Module], None] = lambda network: None,
    progress: Progress | None = None,
) -> Run:
    """Train networks side by side, each to minimize the mean loss of its training rows; returns the best run.

    That is the one with the lowest mean loss of the validation rows of all folds at its best epoch, epoch 0 among them;
    its network has the weights of that epoch, unless there is a refit. Of a run that keeps its last epoch that is the
    last one with finite losses; without validation rows only a few rows tell whether they are.

    A run ends after all epochs; once ``patience`` epochs after the rise of the learning rate have not lowered the
    validation loss by the share ``tol``; when a loss is not finite; or, after each fifth of the epochs, when it is
    clearly behind the best.

    after_epoch is called for each network that has trained an epoch, once all have. progress: how far the runs are, if
    they are to go on.
    """
    progress = Progress(runs, data) if progress is None else progress
    n_threads = threads_for(runs[0].network, schedule.batch_size(len(data.rows)))
    for run in runs:
        if not run.validation_curve:
            run.begin(_validation_losses(run, data, schedule, n_threads))
    active, n_epochs = progress.active, schedule.n_epochs
    fifth = math.ceil(n_epochs / 5)
    for done in range(progress.n_done, n_epochs):
        epochs = [
            Epoch(network, pairs, data, fold.training, schedule, done, n_threads)
            for run in active
            for (network, pairs), fold in zip(run.networks, data.folds, strict=True)
        ]
        losses, trained = iter(train(epochs)), []
        for run in tuple(active):
            loss = sum(islice(losses, len(data.folds))) / len(data.folds)
            most = FEW_ROWS if run.keeps_last and not data.validates else None
            values = _validation_losses(run, data, schedule, n_threads, most)
            run.record(loss, values, tol, patient=done < WARM_UP * n_epochs)
            if run.diverged_in is None:
                trained += [network for network, _ in run.networks]
            if run.diverged_in is not None or (not run.keeps_last and run.n_waited >= patience):
                active.remove(run)
        if (done + 1) % fifth == 0:
            leader = runs[select([run.best for run in runs])]
            active = [run for run in active if select([run.best, leader.best], DROP_ERRORS) == 0]
        progress.active, progress.n_done = active, done + 1
        for network in trained:
            after_epoch(network)
    best = runs[select([run.best for run in runs])]
    if best.keeps:
        load_state(best.network, best.weights)
    if best.keeps_last and not data.validates:
        best.best = _validation_losses(best, data, schedule, n_threads)
        best.validation_curve[best.best_epoch] = float(best.best.mean())
    return best


def is_clearly_better(run: Run, fallback: Run) -> bool:
    """Whether a run is to be kept rather than its fallback, as it was initialized without the validation rows."""
    return select([fallback.initial, run.best], FALLBACK_ERRORS) == 1


def select_and_train(
    network_for: Callable[[str, Tensor | None], nn.Module],
    inits: Sequence[str],
    optimizers: Callable[[nn.Module], list[Pair]],
    data: Data,
    schedule: Schedule,
    *,
    patience: int | None,
    tol: float | None,
    begin: Callable[[Progress], None] = lambda progress: None,
    after_epoch: Callable[[nn.Module], None] = lambda network: None,
) -> tuple[nn.Module, Run]:
    """The network to keep, and the run that chose its initialization and epoch.

    network_for: a network with one of the initializations, of some rows or, for None, of all. If the first is "pca", it
    is the fallback where rows validate: it is left for a network that is clearly better on the validation rows than PCA
    of the training rows and, as a refit is another network, on all rows too. begin: is given the progress before the
    first epoch, and may load that of the same fit before, of several processes in the first. patience: None keeps the
    last epoch.
    """

    def trainable(init: str, rows: Tensor | None) -> tuple[nn.Module, list[Pair]]:
        network = network_for(init, rows)
        return network, optimizers(network)

    last = patience is None
    runs = [Run([trainable(init, fold.training) for fold in data.folds], not data.refit, last) for init in inits]
    runs = runs[:1] if runs[0].keeps_last else runs
    progress = Progress(runs, data)
    with agreement():
        begin(progress)
    progress.share()
    best = choose(runs, data, schedule, patience=patience, tol=tol, after_epoch=after_epoch, progress=progress)
    network, loss = best.network, best.networks[0][1][0][0]
    has_fallback = data.validates and inits[0] == "pca" and not best.keeps_last
    leaves = not has_fallback or is_clearly_better(best, runs[0])
    if leaves and data.refit:
        network, pairs = trainable(inits[runs.index(best)], None)
        _refit_as(best, network, pairs, data, schedule, progress, after_epoch)
    if has_fallback:
        fallback = network_for("pca", None)
        if not (leaves and lowers_the_loss(network, fallback, loss, data, schedule, tol)):
            return fallback, runs[0].at_initialization()
    return network, best


def lowers_the_loss(
    network: nn.Module, fallback: nn.Module, loss: Loss, data: Data, schedule: Schedule, tol: float
) -> bool:
    """Whether a network clearly has a lower mean loss of all rows than its fallback, and by more than the share tol.

    A linear network cannot, as PCA is its optimum: decay of its weights may help on some rows, but then PCA is kept.
    """
    n_threads = threads_for(network, schedule.batch_size(len(data.rows)))
    with reproducible(schedule.seed, data.x.device, n_threads):
        to_beat, found = (
            _weighted(evaluate(loss, module, data.source, data.rows, OTHER_SEED), data, data.rows)
            for module in (fallback, network)
        )
    by_more = found.mean() < to_beat.mean() - tol * to_beat.mean().abs()
    return bool(by_more) and select([to_beat, found], 2 * FALLBACK_ERRORS) == 1


def refit(
    network: nn.Module,
    pairs: list[Pair],
    data: Data,
    schedule: Schedule,
    n_epochs: int,
    after_epoch: Callable[[nn.Module], None] = lambda network: None,
    n_before: int = 0,
) -> int:
    """Train on all rows for the first so many epochs of a schedule, of which some were done before; how many are done.

    Ends after an epoch whose loss is not finite, or whose weights are not, with the weights before it.
    """
    n_threads = threads_for(network, schedule.batch_size(len(data.rows)))
    for done in range(n_before, n_epochs):
        before = _copy(network)
        (loss,) = train([Epoch(network, pairs, data, data.rows, schedule, done, n_threads)])
        if not (math.isfinite(loss) and all(bool(p.isfinite().all()) for p in network.parameters())):
            load_state(network, before)
            return done
        after_epoch(network)
    return n_epochs


def _refit_as(
    best: Run,
    network: nn.Module,
    pairs: list[Pair],
    data: Data,
    schedule: Schedule,
    progress: Progress,
    after_epoch: Callable[[nn.Module], None],
) -> None:
    """Train the network of all rows for as many epochs as the best run, or on to these."""

    def counted(network: nn.Module) -> None:
        progress.n_refitted += 1
        after_epoch(network)

    n_before = progress.refit(network, pairs)
    n_done = refit(network, pairs, data, schedule, best.best_epoch, counted, n_before)
    if n_done < best.best_epoch:
        best.best_epoch, best.diverged_in = n_done, n_done + 1


def _validation_losses(run: Run, data: Data, schedule: Schedule, n_threads: int, most: int | None = None) -> Tensor:
    """Losses of the validation rows of all folds, or of so many; of a row that validates in several, the mean."""
    with reproducible(schedule.seed, data.x.device, n_threads):
        losses = [
            evaluate(pairs[0][0], network, data.source, indices(fold.validation)[:most])
            for (network, pairs), fold in zip(run.networks, data.folds, strict=True)
        ]
    values, rows = torch.cat(losses), torch.cat([indices(fold.validation)[:most] for fold in data.folds])
    once, places, counts = rows.cpu().unique(return_inverse=True, return_counts=True)
    if len(once) < len(rows):
        values, rows = values.new_zeros(len(once)).index_add(0, places, values) / counts, once
    return _weighted(values, data, rows)


def _weighted(losses: Tensor, data: Data, rows: Tensor) -> Tensor:
    """Losses times the weights of their rows, divided by the mean of these: the mean of all is the weighted mean."""
    losses = gathered(losses)
    if data.weights is None:
        return losses
    weights = gathered(data.weights[rows.cpu()])
    return losses * (weights / weights.mean())


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state(network).items()}
