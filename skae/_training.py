"""Training: epochs over rows, and pairs of a loss and its optimizer."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from threading import RLock
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ._adam import Adam
from ._distributed import epoch_of_all, gathered, own_seed, several, total
from ._graphs import DEVICES, replayed
from ._mapped import EveryRow, MappedRows, indices
from ._rows import SparseRows, in_proportion, training_rows_at_once

__all__ = [
    "Data",
    "Epoch",
    "Fold",
    "Loss",
    "Pair",
    "Schedule",
    "epoch",
    "evaluate",
    "losses_of",
    "memory_errors_explained",
    "ordinary_modes",
    "random_order",
    "reproducible",
    "seeded",
    "split",
    "threads_for",
    "train",
    "train_alone",
    "train_pass",
    "trains_together",
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
            if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
                modes.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def memory_errors_explained() -> Iterator[None]:
    """Within, an accelerator that is out of memory says in one line what to do."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        message = (
            "The accelerator is out of memory. Lower batch_size or hidden_layer_sizes, or use device='cpu'. "
            f"({str(error).partition('. ')[0].strip()}.)"
        )
        raise type(error)(message) from None


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


def random_order(rows: Tensor, weights: Tensor | None = None) -> Tensor:
    """The rows in the order of an epoch; with weights, one for each row of x, drawn in proportion to them."""
    if weights is None:
        return rows[torch.randperm(len(rows), device=rows.device)]
    return in_proportion(rows, weights[rows.cpu()], len(rows))


def epoch(
    pairs: list[Pair],
    module: nn.Module,
    x: Tensor | SparseRows | MappedRows,
    rows: Tensor | EveryRow,
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
    n_done = 0
    for batch in _batches(x, rows, batch_size, weights):
        rate, n_done = learning_rate(n_done / len(rows)), n_done + len(batch)
        for place, (loss, optimizer) in enumerate(pairs):
            for group in optimizer.param_groups:
                group["lr"] = rate
            value = loss(module, batch).mean()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            if place == 0:
                total += value.detach() * len(batch)
    return float(total) / len(rows)


def _batches(
    x: Tensor | SparseRows | MappedRows,
    rows: Tensor | EveryRow,
    batch_size: int,
    weights: Tensor | None,
    n_batches: int | None = None,
) -> Iterator[Tensor]:
    """Batches of a size; of rows in memory, if their number is given, so many of about equal sizes."""
    if isinstance(x, MappedRows):
        yield from x.batches(rows, batch_size)
        return
    order = random_order(rows, weights)
    for part in order.split(batch_size) if n_batches is None else order.tensor_split(n_batches):
        yield x[part]


class Fold(NamedTuple):
    """Indices of the rows that train a network and of those that validate it; the same ones if none are set aside."""

    training: Tensor | EveryRow
    validation: Tensor | EveryRow


class Data(NamedTuple):
    """Rows of x and what each is for.

    rows: indices of all rows that may be looked at. folds: for each initialization one network is trained a fold.
    refit: whether the network to keep is trained on all rows, once the folds have chosen its initialization and epoch.
    weights: how much each row of x counts, float64 (len(x),), on the CPU, or None. batches_from: what batches are taken
    from by indices of rows, where a row brings others with it; None if it is x.
    """

    x: Tensor | SparseRows | MappedRows
    rows: Tensor | EveryRow
    folds: tuple[Fold, ...]
    refit: bool = False
    weights: Tensor | None = None
    batches_from: Any = None

    @property
    def source(self) -> Any:
        """What losses see a part of: the rows, or these with the rows that they bring with them."""
        return self.x if self.batches_from is None else self.batches_from

    @property
    def validates(self) -> bool:
        """Whether rows are set aside; otherwise the training loss chooses."""
        return self.folds[0].validation is not self.rows


class Schedule(NamedTuple):
    """Batches and learning rates of all epochs, the same for each network of a fit, and a seed for each epoch.

    The learning rate rises over the first tenth of the steps and falls to zero as a cosine. batch_size: function of the
    number of rows that train. An epoch has a seed of its own, so that a network is the same alone and beside others.
    """

    n_epochs: int
    learning_rate: float
    batch_size: Callable[[int], int]
    seed: int

    def seed_of(self, done: int) -> int:
        return (self.seed + done) % 2**63

    def rate(self, done: int) -> Callable[[float], float]:
        """Learning rate within an epoch, after so many, as a function of the share of it that is done."""

        def rate(share: float) -> float:
            progress = (done + share) / self.n_epochs
            rise = min(1.0, (progress + 1e-3) / WARM_UP)
            fall = max(0.0, progress - WARM_UP) / (1 - WARM_UP)
            return self.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * fall))

        return rate


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
    loss: Loss, module: nn.Module, x: Tensor | SparseRows | MappedRows, rows: Tensor | EveryRow, seed: int = 0
) -> Tensor:
    """Loss of each row of ``x[rows]``, float64 (len(rows),), on the CPU, with the same noise for the same seed.

    Of every row of a memory map those of its sample.
    """
    module.eval()
    parts = indices(rows).split(training_rows_at_once(x))
    with seeded(own_seed(seed), x.device):
        losses = [loss(module, x[part]) for part in parts]
    if losses[0].shape != parts[0].shape:
        raise ValueError(
            f"The loss must give one value for each row, shape ({len(parts[0])},), got an array of shape "
            f"{tuple(losses[0].shape)}: sum over features, not over rows."
        )
    return torch.cat(losses).cpu().double()  # mps has no float64


class Epoch(NamedTuple):
    """An epoch that a network is to be trained, after so many, on some of the rows of data."""

    network: nn.Module
    pairs: list[Pair]
    data: Data
    rows: Tensor | EveryRow
    schedule: Schedule
    done: int
    n_threads: int

    @property
    def batch_size(self) -> int:
        return self.schedule.batch_size(len(self.rows))

    @property
    def seed(self) -> int:
        return self.schedule.seed_of(self.done)


# What trains the epochs of a fit in place of the loop here: of a search, whose fits train beside one another.
trains_together: ContextVar[Callable[[list[Epoch]], list[float]] | None] = ContextVar("trains_together", default=None)


def train(epochs: list[Epoch]) -> list[float]:
    """Train networks of a fit, each for one epoch; their mean losses."""
    together = trains_together.get()
    return [train_alone(request) for request in epochs] if together is None else together(epochs)


def losses_of(results: list[float | Exception]) -> list[float]:
    """Losses of epochs, if none of them raised an error."""
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def train_alone(request: Epoch) -> float:
    """Train a network for one epoch; its mean loss."""
    network, pairs, data, rows, schedule, done, n_threads = request
    if several():
        return _train_with_others(request)
    seed, batch_size, rate = request.seed, request.batch_size, schedule.rate(done)
    with reproducible(seed, data.x.device, n_threads):
        if data.x.device.type in DEVICES and isinstance(data.source, Tensor) and data.weights is None:
            rates = [rate(start / len(rows)) for start in range(0, len(rows), batch_size)]
            loss = replayed(pairs, network, data.source, rows, batch_size, rates, seed)
            if loss is not None:
                return loss
        return epoch(pairs, network, data.source, rows, batch_size, rate, data.weights)


def _train_with_others(request: Epoch) -> float:
    """The same in one of several processes: as many steps in each, over equal shares of its rows.

    There are no more steps than the process with most batches has: fewer where shares cannot be that small.
    """
    network, pairs, data, rows, schedule, done, n_threads = request
    n_rows = total(len(rows))
    n_steps = math.ceil(n_rows / schedule.batch_size(n_rows))
    size = math.ceil(len(rows) / n_steps)
    n_here = math.ceil(len(rows) / size) if isinstance(data.source, MappedRows) else min(n_steps, len(rows))
    n_steps = int(gathered(torch.tensor([n_here])).max())
    weight = 1.0 if data.weights is None else float(data.weights[rows.cpu()].mean())
    with reproducible(own_seed(request.seed), data.x.device, n_threads):
        batches = _batches(data.source, rows, size, data.weights, n_here)
        return epoch_of_all(pairs, network, batches, n_steps, schedule.rate(done), weight)


def train_pass(
    pairs: list[Pair], network: nn.Module, data: Data, seed: int, batch_size: int, learning_rate: float
) -> float:
    """One epoch at a constant learning rate; its loss, NaN if it left weights that are not finite."""
    with reproducible(seed, data.x.device, threads_for(network, batch_size)):
        loss = epoch(pairs, network, data.source, data.rows, batch_size, lambda _: learning_rate, data.weights)
    return loss if all(bool(parameter.isfinite().all()) for parameter in network.parameters()) else math.nan
