"""The one optimization loop: it knows a loss, a module and rows, and nothing of what they are for."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock

import torch
from torch import Tensor, nn

__all__ = [
    "ROWS_AT_ONCE",
    "Run",
    "adam",
    "clear_gain",
    "epoch",
    "evaluate",
    "minimize",
    "play",
    "race",
    "reproducible",
    "seeded",
    "threads_for",
]

Loss = Callable[[nn.Module, Tensor], Tensor]
# An objective and the optimizer of the weights that descend on it.
Player = tuple[Loss, torch.optim.Optimizer]

# One intra-op thread for this many floating-point operations in a step. With fewer, threads wait for one another longer
# than they work: on a busy machine two threads made a step of 0.6 ms take 13 ms.
FLOP_PER_THREAD = 7e7

# torch's generator and default dtype belong to the process: fits in threads take turns, or none would be reproducible.
_lock = RLock()

# Rows that pass through a module together outside training: enough to fill the processor, few enough that what they
# take stays in its caches. Only the speed depends on it.
ROWS_AT_ONCE = 2048

# Share of the steps over which the learning rate rises.
WARM_UP = 0.1

# A comparison of the losses of fewer rows than this decides nothing.
LEAST_ROWS = 10


def threads_for(module: nn.Module, batch_size: int) -> int:
    """Number of threads that a training step of this size can use, at most the caller's."""
    n_weights = sum(parameter.numel() for parameter in module.parameters())
    flop = 6 * n_weights * batch_size  # two a weight and row forward, four backward
    return max(1, min(torch.get_num_threads(), int(flop / FLOP_PER_THREAD)))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within, the generators of the processor and of ``device`` start at ``seed``; afterwards they are as before."""
    accelerator = getattr(torch, device.type) if device.type in ("cuda", "mps") else None
    before = accelerator.get_rng_state() if accelerator else None
    with torch.random.fork_rng([]):
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
    """Within, ``seed`` alone decides what is drawn; the caller's generators, dtype and threads are given back."""
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


def adam(module: nn.Module, weight_decay: float, betas: tuple[float, float] = (0.9, 0.999)) -> torch.optim.AdamW:
    """Adam with decoupled decay of the weight matrices of a module (Loshchilov and Hutter 2019, algorithm 2)."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=betas, fused=parameters[0].device.type in ("cpu", "cuda"))


def epoch(
    players: list[Player],
    module: nn.Module,
    x: Tensor,
    rows: Tensor,
    batch_size: int,
    learning_rate: Callable[[float], float],
) -> float:
    """Pass once over ``x[rows]`` in random order; returns the mean loss of a row, that of the first player.

    On every batch each player takes a step, one after another; a minimization has a single one. learning_rate: function
    of the share of the pass that is done. The losses are summed where they are computed and read once, as a read makes
    an accelerator wait.
    """
    module.train()
    total = torch.zeros((), device=x.device)
    order = rows[torch.randperm(len(rows), device=rows.device)]
    for start in range(0, len(rows), batch_size):
        batch = x[order[start : start + batch_size]]
        for place, (loss, optimizer) in enumerate(players):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(start / len(rows))
            value = loss(module, batch).mean()
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            if place == 0:
                total += value.detach() * len(batch)
    return float(total) / len(rows)


@torch.no_grad()
def evaluate(loss: Loss, module: nn.Module, x: Tensor, rows: Tensor) -> Tensor:
    """Loss of each row of ``x[rows]``, shape (len(rows),), with the same noise at every call."""
    module.eval()
    with seeded(0, x.device):
        losses = [loss(module, x[part]) for part in rows.split(ROWS_AT_ONCE)]
    if losses[0].shape != rows[:ROWS_AT_ONCE].shape:
        raise ValueError(
            f"The loss must give one value for each row, shape ({len(rows[:ROWS_AT_ONCE])},), got an array of shape "
            f"{tuple(losses[0].shape)}: sum over features, not over rows."
        )
    return torch.cat(losses).cpu().double()  # mps has no float64


def clear_gain(before: Tensor, after: Tensor, n_errors: float) -> bool:
    """Whether the paired losses ``after`` are better in the mean, and clearly so.

    Clearly: the mean gain is above ``n_errors`` of its standard errors or, as a few extreme rows can swamp any mean,
    the share of rows that gain is above one half by twice as many of its own.
    """
    gain = before - after
    if len(gain) < LEAST_ROWS or not bool(gain.mean() > 0):
        return False
    by_mean = gain.mean() / gain.std() * math.sqrt(len(gain))
    by_rows = ((gain > 0).double().mean() - 0.5) / 0.5 * math.sqrt(len(gain))
    return bool((by_mean > n_errors) | (by_rows > 2 * n_errors))


@dataclass
class Run:
    """One descent from one start: the curves so far, the weights of the best epoch and the losses they give.

    first and best are losses of the watched rows, shape (n_watched,), at the start and at the best epoch; epoch 0 is
    the start. watched_curve has their means, from the start on; loss_curve the mean losses during each epoch.
    """

    module: nn.Module
    first: Tensor
    best: Tensor
    weights: dict[str, Tensor]
    best_epoch: int = 0
    loss_curve: list[float] = field(default_factory=list)
    watched_curve: list[float] = field(default_factory=list)
    diverged: bool = False


def _at_start(loss: Loss, module: nn.Module, x: Tensor, watched: Tensor) -> Run:
    first = evaluate(loss, module, x, watched)
    return Run(module, first, first, copy.deepcopy(module.state_dict()), watched_curve=[float(first.mean())])


def minimize(
    loss: Loss,
    module: nn.Module,
    x: Tensor,
    rows: Tensor,
    watched: Tensor,
    *,
    seed: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    max_epochs: int,
    patience: int,
    tol: float,
) -> Iterator[Run]:
    """Minimize the mean of ``loss(module, x[rows])`` with Adam, noting the best weights for ``x[watched]``.

    Yields the run, the same object, at the start and after every epoch; the start is among the epochs that can be best.
    The learning rate rises over the first tenth of the steps and falls to zero as a cosine. Ends after ``max_epochs``,
    or once ``patience`` epochs after the rise have not bettered the mean loss of the watched rows by the share
    ``tol``, or when the loss is not finite. Every epoch has a seed of its own: other descents may go on in between.
    """
    optimizer = adam(module, weight_decay)
    run = _at_start(loss, module, x, watched)
    yield run
    best, waited = run.watched_curve[0], 0
    for done in range(max_epochs):
        with seeded((seed + done) % 2**63, x.device):
            rate = _rate(learning_rate, done, max_epochs)
            run.loss_curve.append(epoch([(loss, optimizer)], module, x, rows, batch_size, rate))
        losses = evaluate(loss, module, x, watched)
        run.watched_curve.append(float(losses.mean()))
        if not (math.isfinite(run.loss_curve[-1]) and math.isfinite(run.watched_curve[-1])):
            run.diverged = True
            return
        enough = run.watched_curve[-1] < best - tol * abs(best)
        waited = 0 if enough else waited + (done + 1 > WARM_UP * max_epochs)
        if run.watched_curve[-1] < best:
            best, run.best, run.best_epoch = run.watched_curve[-1], losses, done + 1
            run.weights = copy.deepcopy(module.state_dict())
        yield run
        if waited >= patience:
            return


def play(
    loss: Loss,
    players: list[Player],
    module: nn.Module,
    x: Tensor,
    rows: Tensor,
    watched: Tensor,
    *,
    seed: int,
    batch_size: int,
    learning_rate: float,
    max_epochs: int,
) -> Iterator[Run]:
    """Let players step in turn, each down its own objective and so perhaps up another's, as in a GAN.

    Yields as `minimize` does, with the same learning rates and seeds. No loss tells who is ahead in a game, so that
    nothing is chosen by one: the last weights are kept while they are finite, and ``loss`` of the watched rows is only
    noted.
    """
    run = _at_start(loss, module, x, watched)
    yield run
    for done in range(max_epochs):
        with seeded((seed + done) % 2**63, x.device):
            rate = _rate(learning_rate, done, max_epochs)
            run.loss_curve.append(epoch(players, module, x, rows, batch_size, rate))
        losses = evaluate(loss, module, x, watched)
        run.watched_curve.append(float(losses.mean()))
        if not (math.isfinite(run.loss_curve[-1]) and math.isfinite(run.watched_curve[-1])):
            run.diverged = True
            return
        run.best, run.best_epoch, run.weights = losses, done + 1, copy.deepcopy(module.state_dict())
        yield run


def _rate(highest: float, done: int, max_epochs: int) -> Callable[[float], float]:
    """Learning rate within an epoch, as a function of the share of it that is done."""

    def rate(share: float) -> float:
        progress = (done + share) / max_epochs
        rise = min(1.0, (progress + 1e-3) / WARM_UP)
        fall = max(0.0, progress - WARM_UP) / (1 - WARM_UP)
        return highest * rise * 0.5 * (1 + math.cos(math.pi * fall))

    return rate


def race(
    descents: list[Iterator[Run]],
    max_epochs: int,
    after_epoch: Callable[[nn.Module], None] = lambda module: None,
) -> tuple[Run, Run]:
    """Descend from each start, epoch by epoch; the best run, its module at its best weights, and the first run.

    After two, three and four fifths of the epochs, a run whose best losses are clearly behind the leader's is dropped.
    After one, some of the later winners still were behind.
    """
    runs = [next(descent) for descent in descents]
    racing = list(range(len(runs)))
    heat = math.ceil(max_epochs / 5)
    for done in range(1, max_epochs + 1):
        for place in tuple(racing):
            if next(descents[place], None):
                after_epoch(runs[place].module)
            else:
                racing.remove(place)
        leader = min(runs, key=_mean_of_best)
        if done % heat == 0 and done > heat:
            racing = [place for place in racing if not clear_gain(runs[place].best, leader.best, 2.0)]
    best = min(runs, key=_mean_of_best)
    best.module.load_state_dict(best.weights)
    return best, runs[0]


def _mean_of_best(run: Run) -> float:
    return float(run.best.mean().nan_to_num(nan=math.inf))
