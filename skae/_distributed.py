"""One fit of many processes: each has its own rows, and what is learned is learned from the rows of all.

If `torch.distributed` has a process group, the processes of it call `fit` together. Everything here is then computed
from all of them; otherwise it is what one process has.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, distributed, nn

__all__ = [
    "agreement",
    "alone",
    "epoch_of_all",
    "gathered",
    "moments",
    "of_first",
    "one_fit",
    "own_seed",
    "several",
    "share",
    "summed",
    "told_by_first",
    "total",
]


def several() -> bool:
    """Whether other processes fit together with this one."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def alone(what: str) -> None:
    """ValueError in one of several processes that fit together."""
    if several():
        raise ValueError(
            f"{what} is not possible where the processes of a torch.distributed group fit together. Do without, or fit "
            "in one process before the group is initialized, or after destroy_process_group."
        )


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            "Another process of the torch.distributed group has ended, or did not call fit or answer within the "
            "timeout of the group. Look for the error of that process and start all of them again; this estimator is "
            "as it was before fit."
        ) from error


def _where_sent(tensor: Tensor) -> Tensor:
    """The tensor where the processes can exchange it."""
    kind = {"gloo": "cpu", "mpi": "cpu", "nccl": "cuda"}.get(distributed.get_backend(), tensor.device.type)
    return tensor if tensor.device.type == kind else tensor.to(kind)


def summed(values: Tensor) -> Tensor:
    """The sum over all processes."""
    if not several():
        return values
    sums = _where_sent(values).clone()
    with _answered():
        distributed.all_reduce(sums)
    return sums.to(values.device)


def total(number: int) -> int:
    """The sum of a whole number over all processes."""
    return int(summed(torch.tensor(number))) if several() else number


def of_first(value: Tensor | int) -> Tensor | int:
    """That of the first process."""
    if not several():
        return value
    if not isinstance(value, Tensor):
        return int(of_first(torch.tensor(value)))
    sent = _where_sent(value).clone()
    with _answered():
        distributed.broadcast(sent, 0)
    return sent.to(value.device)


def told_by_first(value: object) -> object:
    """What the first process has, of any kind; in the first itself the same object."""
    if not several():
        return value
    told = [value]
    with _answered():
        distributed.broadcast_object_list(told, 0)
    return told[0]


def gathered(rows: Tensor) -> Tensor:
    """Rows of all processes, one after another, however many each has."""
    if not several():
        return rows
    sent, n_processes = _where_sent(rows), distributed.get_world_size()
    counts = [torch.zeros((), dtype=torch.long, device=sent.device) for _ in range(n_processes)]
    with _answered():
        distributed.all_gather(counts, torch.tensor(len(sent), device=sent.device))
        padded = sent.new_zeros(max(map(int, counts)), *sent.shape[1:])
        padded[: len(sent)] = sent
        parts = [torch.empty_like(padded) for _ in range(n_processes)]
        distributed.all_gather(parts, padded)
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)]).to(rows.device)


def moments(mean: Tensor, squares: Tensor, count: float) -> tuple[Tensor, Tensor, float]:
    """Mean of each column, sum of squared deviations from it, of each column or of all, and number of rows."""
    if not several():
        return mean, squares, count
    counts = float(summed(torch.tensor(float(count), dtype=torch.float64)))
    of_all = summed(mean * count) / counts
    between = count * (mean - of_all).square()
    return of_all, summed(squares + (between if squares.ndim else between.sum())), counts


def own_seed(seed: int) -> int:
    """A seed for what each process draws for rows of its own; that of the first is the one given."""
    return (seed + 0x9E3779B97F4A7C15 * distributed.get_rank()) % 2**63 if several() else seed


@torch.no_grad()
def share(network: nn.Module) -> nn.Module:
    """The network with the weights that it has in the first process."""
    if several():
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.copy_(of_first(tensor))
    return network


@contextmanager
def agreement() -> Iterator[dict[str, object]]:
    """Within, what may fail in one process, and facts that must be the same in all.

    All processes leave together: with the error of their own, if they have one; otherwise with one that says that
    another has failed, or which fact differs.
    """
    facts: dict[str, object] = {}
    if not several():
        yield facts
        return
    try:
        yield facts
    except BaseException:
        with suppress(RuntimeError):
            _told(None)
        raise
    told = _told(facts)
    if failed := [rank for rank, others in enumerate(told) if others is None]:
        raise RuntimeError(f"The fit of process {failed[0]} of the group failed before training: see its error.")
    for name in {name: None for others in told for name in others}:
        values = [others.get(name) for others in told]
        if different := [rank for rank, value in enumerate(values) if value != values[0]]:
            raise ValueError(
                f"The processes of the group must fit the same estimator to rows of the same kind, but {name} differs: "
                f"{values[0]!r} in process 0 and {values[different[0]]!r} in process {different[0]}."
            )


def _told(facts: dict[str, object] | None) -> list[dict[str, object] | None]:
    """What each process tells the others."""
    told: list[dict[str, object] | None] = [None] * distributed.get_world_size()
    with _answered():
        distributed.all_gather_object(told, facts)
    return told


@contextmanager
def one_fit(estimator: object) -> Iterator[None]:
    """Within, callbacks of the estimator are told by the first process alone."""
    name, attributes = "_skl_callbacks", vars(estimator)
    if not several() or distributed.get_rank() == 0 or name not in attributes:
        yield
        return
    callbacks = attributes.pop(name)
    try:
        yield
    finally:
        attributes[name] = callbacks


def epoch_of_all(
    pairs: list[tuple[Callable[[nn.Module, Tensor], Tensor], object]],
    module: nn.Module,
    batches: Iterable[Tensor],
    n_steps: int,
    learning_rate: Callable[[float], float],
    weight: float,
) -> float:
    """Pass once over the batches of all processes; the mean of the first loss over all rows.

    All take n_steps steps, each down the mean gradient of the rows that are in the batches of all. A process that has
    no more batches takes the steps of the others. weight: how much one row of a batch counts. Buffers that change with
    a batch, as means that are kept up to date, become the mean of what they would be in each process.
    """
    module.train()
    losses, n_counted, remaining = 0.0, 0.0, iter(batches)
    buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
    for step in range(n_steps):
        batch, rate = next(remaining, None), learning_rate(step / n_steps)
        count = 0.0 if batch is None else weight * len(batch)
        for place, (loss, optimizer) in enumerate(pairs):
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            before, value = [(buffer, buffer.clone(), buffer._version) for buffer in buffers], torch.zeros(())
            if batch is not None:
                value = loss(module, batch).mean()
                value.backward()
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            counted, value = _average(parameters, before, value.detach(), count)
            optimizer.step()
            if place == 0:
                losses, n_counted = losses + float(value) * counted, n_counted + counted
    return losses / n_counted


@torch.no_grad()
def _average(
    parameters: list[Tensor], before: list[tuple[Tensor, Tensor, int]], loss: Tensor, count: float
) -> tuple[float, Tensor]:
    """Make gradients, and what was added to buffers, the means of all processes; number of rows and their mean loss.

    A gradient that no process has stays None. before: buffers, what they were, and which version of them.
    """
    here = [parameter.grad is not None for parameter in parameters]
    moved = [buffer._version != version for buffer, _, version in before]
    flags = torch.tensor([count, *map(float, here), *map(float, moved)], dtype=torch.float64)
    counted, *flags = summed(flags).tolist()
    changes = [
        (p, torch.zeros_like(p) if p.grad is None else p.grad) for p, f in zip(parameters, flags, strict=False) if f
    ]
    kept = [(b, old, b - old) for (b, old, _), f in zip(before, flags[len(parameters) :], strict=True) if f]
    parts = [loss.view(1), *(change.flatten() for _, change in changes), *(change.flatten() for _, _, change in kept)]
    device = parameters[0].device
    means = summed(torch.cat([part.to(device) for part in parts]) * (count / counted))
    value, *parts = means.split([part.numel() for part in parts])
    for (parameter, _), part in zip(changes, parts, strict=False):
        parameter.grad = part.view_as(parameter).to(parameter.dtype)
    for (buffer, old, _), part in zip(kept, parts[len(changes) :], strict=True):
        buffer.copy_(old + part.view_as(buffer))
    return counted, value
