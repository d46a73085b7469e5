"""Training: epochs over rows, pairs of a loss and its optimizer, and the choice of the weights to keep."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from threading import RLock
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ._adam import Adam
from ._rows import SparseRows, in_proportion, training_rows_at_once
from ._saving import load_state, state

__all__ = [
    "Data",
    "Run",
    "epoch",
    "evaluate",
    "ordinary_modes",
    "reproducible",
    "seeded",
    "select",
    "split",
    "threads_for",
    "train",
    "train_pass",
]

Loss = Callable[[nn.Module, Tensor], Tensor]
# A loss and the optimizer of the weights that step down it.
Pair = tuple[Loss, Adam | torch.optim.Optimizer]

# One intra-op thread for this many floating-point operations in a step. With fewer, threads wait for one another longer
# than they work: on a busy machine two threads made a step of 0.6 ms take 13 ms.
FLOP_PER_THREAD = 7e7

# torch's generator and default dtype belong to the process: epochs of fits in threads take turns, or no fit would be
# reproducible.
_lock = RLock()


def _renew_lock() -> None:
    global _lock
    _lock = RLock()


if hasattr(os, "register_at_fork"):  # a thread that held the lock is not in the child
    os.register_at_fork(after_in_child=_renew_lock)

# Share of the steps over which the learning rate rises.
WARM_UP = 0.1

# A comparison of the losses of fewer rows than this decides nothing.
LEAST_ROWS = 10
# The fallback is left for a gain of this many standard errors. Chosen by benchmarks/pca_fallback.py: with less, PCA is
# left for worse on tables of a hundred rows; with more, gains of a tenth are missed there.
FALLBACK_ERRORS = 1.0
# A network that is behind by so many is trained no further.
DROP_ERRORS = 2.0


def threads_for(module: nn.Module, batch_size: int) -> int:
    """Number of threads that a training step of this size can use, at most the caller's."""
    n_weights = sum(parameter.numel() for parameter in module.parameters())
    flop = 6 * n_weights * batch_size  # two a weight and row forward, four backward
    return max(1, min(torch.get_num_threads(), int(flop / FLOP_PER_THREAD)))


@contextmanager
def ordinary_modes() -> Iterator[None]:
    """Within, gradients are recorded and nothing is cast, whatever the caller has set for this thread."""
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                modes.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within, the generators of the CPU and of ``device`` start at ``seed``; afterwards they are as before."""
    accelerator = getattr(torch, device.type) if device.type in ("cuda", "mps") else None
    with torch.random.fork_rng([]), torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        before = accelerator.get_rng_state() if accelerator else None
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach into every accelerator
        if accelerator:
            accelerator.manual_seed(seed)
        try:
            yield
        finally:
            if accelerator:
                accelerator.set_rng_state(before)


@contextmanager
def reproducible(seed: int, device: torch.device, n_threads: int | None = None) -> Iterator[None]:
    """Within, ``seed`` alone determines the draws; the caller's generators, dtype and threads are restored."""
    with _lock:
        caller = torch.get_default_dtype(), torch.get_num_threads()
        with seeded(seed, device):
            torch.set_default_dtype(torch.float32)
            torch.set_num_threads(n_threads or caller[1])
            try:
                yield
            finally:
                torch.set_default_dtype(caller[0])
                torch.set_num_threads(caller[1])


def epoch(
    pairs: list[Pair],
    module: nn.Module,
    x: Tensor | SparseRows,
    rows: Tensor,
    batch_size: int,
    learning_rate: Callable[[float], float],
    weights: Tensor | None = None,
) -> float:
    """Pass once over ``x[rows]`` in random order; returns the mean of the first loss over the rows.

    Rows with weights are drawn in proportion to them, as many as there are: each loss then sees them as often as they
    count, also one that is not a sum over rows.

    On every batch each optimizer takes a step down its loss, one after another. learning_rate: function of the share of
    the pass that is done. The losses are summed where they are computed and read once, as a read makes an accelerator
    wait.
    """
    module.train()
    total = torch.zeros((), device=x.device)
    if weights is None:
        order = rows[torch.randperm(len(rows), device=rows.device)]
    else:
        order = in_proportion(rows, weights[rows.cpu()], len(rows))
    for start in range(0, len(rows), batch_size):
        batch = x[order[start : start + batch_size]]
        for place, (loss, optimizer) in enumerate(pairs):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(start / len(rows))
            value = loss(module, batch).mean()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            if place == 0:
                total += value.detach() * len(batch)
    return float(total) / len(rows)


class Data(NamedTuple):
    """Rows of x and what each is for.

    rows, training, validation: indices of all rows that may be looked at, in random order, of those that train and of
    those that validate. weights: how much each row of x counts, float64 (len(x),), on the CPU, or None.
    """

    x: Tensor | SparseRows
    rows: Tensor
    training: Tensor
    validation: Tensor
    weights: Tensor | None = None


def split(
    n_rows: int, n_validation: int, seed: int, device: torch.device, groups: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of all rows in random order, of the training rows and of the validation rows.

    If none are set aside for validation, all rows do both. groups: the group of each row, shape (n_rows,). Whole groups
    are set aside, in random order, while the validation rows are no more than n_validation or a third of all; if each
    is larger, the smallest is.
    """
    with reproducible(seed, device):
        rows = torch.randperm(n_rows)
        if groups is not None and n_validation:
            sizes = groups.bincount()
            limit, chosen, n_chosen = max(n_validation, n_rows // 3), torch.zeros(len(sizes), dtype=torch.bool), 0
            for group in torch.randperm(len(sizes)).tolist():
                if n_chosen < n_validation and n_chosen + sizes[group] <= limit:
                    chosen[group], n_chosen = True, n_chosen + int(sizes[group])
            chosen[sizes.argmin()] |= n_chosen == 0
            validates = chosen[groups[rows]]
            rows, n_validation = torch.cat([rows[validates], rows[~validates]]), int(validates.sum())
    rows = rows.to(device)
    return rows, rows[n_validation:], rows[:n_validation] if n_validation else rows


@torch.no_grad()
def evaluate(
    loss: Loss, module: nn.Module, x: Tensor | SparseRows, rows: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Loss of each row of ``x[rows]``, shape (len(rows),), with the same noise at every call.

    With weights each is multiplied by that of its row, divided by their mean: the mean of all is the weighted mean.
    """
    module.eval()
    parts = rows.split(training_rows_at_once(x))
    with seeded(0, x.device):
        losses = [loss(module, x[part]) for part in parts]
    if losses[0].shape != parts[0].shape:
        raise ValueError(
            f"The loss must give one value for each row, shape ({len(parts[0])},), got an array of shape "
            f"{tuple(losses[0].shape)}: sum over features, not over rows."
        )
    losses = torch.cat(losses).cpu().double()  # mps has no float64
    if weights is None:
        return losses
    weights = weights[rows.cpu()]
    return losses * (weights / weights.mean())


def select(losses: Sequence[Tensor], n_errors: float | None = None) -> int:
    """Place of the lowest mean loss: the one rule by which epochs and networks are chosen.

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
    """The training of one network: its curves so far, and the weights to keep with their losses.

    initial and best are losses of the validation rows, shape (n_validation,), at the initialization, which is epoch 0,
    and at best_epoch. validation_curve has their means from epoch 0 on, loss_curve the mean losses during each epoch.
    """

    network: nn.Module
    pairs: list[Pair]
    initial: Tensor = field(init=False)
    best: Tensor = field(init=False)
    weights: dict[str, Tensor] = field(init=False)
    best_epoch: int = 0
    loss_curve: list[float] = field(default_factory=list)
    validation_curve: list[float] = field(default_factory=list)
    n_waited: int = 0
    diverged: bool = False

    @property
    def loss(self) -> Loss:
        return self.pairs[0][0]

    @property
    def alternating(self) -> bool:
        """Whether several optimizers step in turn, each down its own loss and perhaps up another's.

        No loss tells then which epoch or network is ahead: one network is trained, and its last weights are kept.
        """
        return len(self.pairs) > 1

    def begin(self, losses: Tensor) -> None:
        """Note the losses of the validation rows at the initialization."""
        self.initial = self.best = losses
        self.validation_curve.append(float(self.initial.mean()))
        self.weights = self._weights()

    def record(self, loss: float, losses: Tensor, tol: float, patient: bool) -> None:
        """Note an epoch: its training loss and the losses of the validation rows; its weights, if they are to keep."""
        best, mean = float(self.best.mean()), float(losses.mean())
        self.loss_curve.append(loss)
        self.validation_curve.append(mean)
        if not (math.isfinite(loss) and math.isfinite(mean)):
            self.diverged = True
            return
        if not self.alternating:
            self.n_waited = 0 if mean < best - tol * abs(best) else self.n_waited + (not patient)
        if self.alternating or select([self.best, losses]) == 1:
            self.best, self.best_epoch = losses, len(self.loss_curve)
            self.weights = self._weights()

    def left_for(self, fallback: nn.Module) -> "Run":
        """The same run with the fallback, at its initialization, as what is kept."""
        self.network, self.best_epoch, self.best = fallback, 0, self.initial
        return self

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in state(self.network).items()}


def train(
    runs: list[Run],
    data: Data,
    *,
    seed: int,
    batch_size: int,
    learning_rate: float,
    max_epochs: int,
    patience: int,
    tol: float,
    fallback: tuple[nn.Module, nn.Module] | None = None,
    after_epoch: Callable[[nn.Module], None] = lambda network: None,
) -> Run:
    """Train networks side by side, each to minimize the mean loss of the training rows; returns the run to keep.

    The learning rate rises over the first tenth of the steps and falls to zero as a cosine. The network and the epoch
    with the lowest mean loss of the validation rows are kept, epoch 0 among them. Of a run with alternating losses the
    last epoch with finite losses is kept.

    A run ends after ``max_epochs``; once ``patience`` epochs after the rise have not lowered the validation loss by the
    share ``tol``; when a loss is not finite; or, after two, three and four fifths of the epochs, when it is clearly
    behind the best. (After one fifth, some that were behind would still have come out ahead.)

    fallback: a network that is kept instead of those trained, and a reference that they must clearly beat on the
    validation rows. Every epoch has a seed of its own, so that a run is the same alone and beside others.
    """
    n_threads, device = threads_for(runs[0].network, batch_size), data.x.device

    def validate(loss: Loss, network: nn.Module) -> Tensor:
        return evaluate(loss, network, data.x, data.validation, data.weights)

    with reproducible(seed, device, n_threads):
        for run in runs:
            run.begin(validate(run.loss, run.network))
    active, fifth = list(runs), math.ceil(max_epochs / 5)
    for done in range(1, max_epochs + 1):
        rate = _rate(learning_rate, done - 1, max_epochs)
        for run in tuple(active):
            with reproducible((seed + done - 1) % 2**63, device, n_threads):
                loss = epoch(run.pairs, run.network, data.x, data.training, batch_size, rate, data.weights)
                losses = validate(run.loss, run.network)
            run.record(loss, losses, tol, patient=done <= WARM_UP * max_epochs)
            if not run.diverged:
                after_epoch(run.network)
            if run.diverged or (not run.alternating and run.n_waited >= patience):
                active.remove(run)
        if done % fifth == 0 and done > fifth:
            leader = runs[select([run.best for run in runs])]
            active = [run for run in active if select([run.best, leader.best], DROP_ERRORS) == 0]
    best = runs[select([run.best for run in runs])]
    load_state(best.network, best.weights)
    if fallback is None or best.alternating:
        return best
    network, reference = fallback
    with reproducible(seed, device, n_threads):
        to_beat = validate(best.loss, reference)
    return best if select([to_beat, best.best], FALLBACK_ERRORS) == 1 else runs[0].left_for(network)


def train_pass(
    pairs: list[Pair], network: nn.Module, data: Data, seed: int, batch_size: int, learning_rate: float
) -> float:
    """One epoch at a constant learning rate; its loss, NaN if it left weights that are not finite."""
    with reproducible(seed, data.x.device, threads_for(network, batch_size)):
        loss = epoch(pairs, network, data.x, data.rows, batch_size, lambda _: learning_rate, data.weights)
    return loss if all(bool(parameter.isfinite().all()) for parameter in network.parameters()) else math.nan


def _rate(highest: float, done: int, max_epochs: int) -> Callable[[float], float]:
    """Learning rate within an epoch, as a function of the share of it that is done."""

    def rate(share: float) -> float:
        progress = (done + share) / max_epochs
        rise = min(1.0, (progress + 1e-3) / WARM_UP)
        fall = max(0.0, progress - WARM_UP) / (1 - WARM_UP)
        return highest * rise * 0.5 * (1 + math.cos(math.pi * fall))

    return rate
