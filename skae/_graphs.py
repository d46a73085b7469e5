"""Epochs recorded as CUDA graphs: every step of an epoch is launched by one call.

A step of a small network takes an accelerator less time than its launches take the host. A CUDA graph is a list of
launches that is recorded once and repeated as a whole. It repeats what was recorded, whatever the host does: an epoch
can be recorded if it reads no value, draws on the device only, and finds all that changes in tensors that stay where
they are. No such list is trusted: it is kept only if it leaves the weights that the same epoch leaves without it.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ._adam import Adam

__all__ = ["DEVICES", "OnDevice", "Recorded", "StaticEpoch", "captured", "replayed"]

# Whose epochs are recorded.
DEVICES = {"cuda"}
# Longer epochs take the ordinary loop: a graph has a node for every launch, of which a step has about a hundred.
MOST_STEPS = 1000
# A recorded epoch must move each tensor as it was moved without the graph, up to this share of the way.
TOLERANCE = 1e-2

aten = torch.ops.aten
# Operators of fixed shape that wait for the device, or that no graph can record, beside those that torch marks.
WAITING = {
    aten._linalg_check_errors.default,
    aten.multinomial.default,
    aten.randperm.default,
    aten.randperm.generator,
}
# Operators that torch marks because they take masks too: of places they have a fixed shape.
INDEXING = {aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default, aten.index_put_.default}
# Graphs of which the capture failed: torch's allocator may still ask them, so they must not be freed.
_failed: list = []


class StaticEpoch:
    """One pass over ``x[rows]`` in random order, as `epoch` of the loop, without a word to the host.

    rates: learning rates of the steps, (n_steps,). total: the loss, summed over rows. Both are on the device, as are
    the weights and the moments, which `run` changes in place. The moments must be there: the loop makes them.
    """

    def __init__(
        self,
        loss: Callable[[nn.Module, Tensor], Tensor],
        optimizer: Adam,
        module: nn.Module,
        x: Tensor,
        rows: Tensor,
        batch_size: int,
    ) -> None:
        self.loss, self.optimizer, self.module = loss, optimizer, module
        self.x, self.rows, self.batch_size = x, rows, batch_size
        self.rates = torch.zeros(math.ceil(len(rows) / batch_size), device=x.device)
        self.total = torch.zeros((), device=x.device)

    def run(self) -> None:
        self.module.train()
        self.total.zero_()
        # randperm cannot be captured; in float64 no two draws are equal, so that the sort has one result
        order = self.rows[torch.rand(len(self.rows), dtype=torch.float64, device=self.rows.device).argsort()]
        for places, rate in zip(order.split(self.batch_size), self.rates.unbind(), strict=True):
            batch = self.x[places]
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            value = self.loss(self.module, batch).mean()
            self.optimizer.zero_grad()
            value.backward()
            self.optimizer.step()
            self.total += value.detach() * len(batch)
        self.optimizer.zero_grad()  # no gradient is left in the memory of a graph


class Recorded(NamedTuple):
    """A recorded epoch: what launches it, and tensors that it reads or writes and that must live as long."""

    replay: Callable[[], None]
    rates: Tensor
    total: Tensor
    x: Tensor
    rows: Tensor

    def epoch(self, rates: list[float]) -> float:
        """Launch it with these learning rates; its mean loss."""
        self.rates.copy_(torch.tensor(rates))
        self.replay()
        return float(self.total) / len(self.rows)


class OnDevice(TorchDispatchMode):
    """Within, whatever a graph could not record raises RuntimeError, as does what it would record wrongly.

    That is to read a value, a shape that depends on values, and a tensor elsewhere: a copy of it waits, and a draw of
    the host would be the same in every epoch. What torch does beyond its operators is not seen.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        reason = self._waits(function, args)
        result = None if reason else function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        if reason or any(tensor.device != self.device for tensor in tensors):
            raise RuntimeError(f"{function} {reason or 'has a tensor on another device'}: no graph can record it.")
        return result

    @staticmethod
    def _waits(function, args) -> str | None:
        if function in INDEXING:
            masks = (leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor))
            return "takes a mask" if any(mask.dtype in (torch.bool, torch.uint8) for mask in masks) else None
        marked = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(function.tags)
        return "waits for the device" if marked or function in WAITING else None


def replayed(
    pairs: list,
    module: nn.Module,
    x: Tensor,
    rows: Tensor,
    batch_size: int,
    rates: list[float],
    seed: int,
) -> float | None:
    """Mean loss of an epoch that a graph has made; None, with all as it was, if the loop is to make it.

    The first epoch of a network is the loop's, which makes the moments and warms the device up. The second one is made
    twice, without a graph and by one that is recorded of it. If both agree, the graph makes all that follow; otherwise
    the loop makes this one and all that follow.

    rates: learning rates of the steps. seed: that of the epoch, with which the generators begin, also when it is made
    again. A loss must be a function of the estimator's parameters, module and batch, as it should be anyway: what the
    host changes from step to step would not change in a graph.
    """
    (loss, optimizer), *others = pairs
    if others or not _is_recordable(optimizer, x, rates):
        return None
    known = optimizer.recorded
    if known is None:
        epoch = StaticEpoch(loss, optimizer, module, x, rows, batch_size)
        epoch.rates.copy_(torch.tensor(rates))
        optimizer.recorded = _verified(epoch, seed)
        return float(epoch.total) / len(rows) if optimizer.recorded else None
    return known.epoch(rates) if known and known.rows is rows and len(known.rates) == len(rates) else None


def _is_recordable(optimizer: object, x: object, rates: list[float]) -> bool:
    adam = isinstance(optimizer, Adam) and optimizer.fused and bool(optimizer.state)
    return adam and isinstance(x, Tensor) and len(rates) <= MOST_STEPS


def _verified(epoch: StaticEpoch, seed: int) -> Recorded | bool:
    """The record of an epoch, which has then made it; False if it is wrong, with weights and generators as before."""
    device, before = epoch.x.device, _Tensors(epoch)
    with _side_stream(device):
        try:
            with OnDevice(device):
                epoch.run()
            expected, loss = before.now(), float(epoch.total)
            replay = _captured_with_other_values(epoch, before, seed)
            replay()
            near = abs(float(epoch.total) - loss) <= TOLERANCE * abs(loss)
            if near and before.are_near(expected):
                return Recorded(replay, epoch.rates, epoch.total, epoch.x, epoch.rows)
        except Exception:  # whatever a capture raises, the loop does without
            pass
        before.restore()
        _seed(seed, device)
    return False


def _captured_with_other_values(epoch: StaticEpoch, before: "_Tensors", seed: int) -> Callable[[], None]:
    """What replays an epoch, ready for it: recorded with other rates and draws, so that neither can be part of it."""
    rates = epoch.rates.clone()
    before.restore()
    epoch.rates.zero_()
    _seed(seed + 1, epoch.x.device)
    replay = captured(epoch.run)
    before.restore()
    epoch.rates.copy_(rates)
    _seed(seed, epoch.x.device)
    return replay


class _Tensors:
    """Weights, buffers and moments, and their values before an epoch."""

    def __init__(self, epoch: StaticEpoch) -> None:
        self.module, self.optimizer = epoch.module, epoch.optimizer
        places = [place for part in self.module.modules() for place in (part._parameters, part._buffers)]
        self.places = [(place, dict(place)) for place in places]
        self.tensors = self._present()
        self.copies = self.now()

    def _present(self) -> list[Tensor]:
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        found = [*self.module.parameters(), *self.module.buffers(), *moments]
        # an expanded tensor cannot be written to, neither by a step
        return list({id(tensor): tensor for tensor in found if 0 not in tensor.stride()}.values())

    def now(self) -> list[Tensor]:
        """Their present values. RuntimeError if one is not the same tensor: a graph would go on with the old one."""
        present = self._present()
        if len(present) != len(self.tensors) or any(a is not b for a, b in zip(present, self.tensors, strict=True)):
            raise RuntimeError("A tensor of the network was replaced in an epoch, not changed in place.")
        return [tensor.detach().clone() for tensor in self.tensors]

    @torch.no_grad()
    def restore(self) -> None:
        """Give them their values back, in place: a graph knows them by their memory."""
        for place, values in self.places:
            place.update(values)
        for tensor, copy in zip(self.tensors, self.copies, strict=True):
            tensor.copy_(copy)

    def are_near(self, expected: list[Tensor]) -> bool:
        """Whether they have moved as expected, up to rounding; NaN is never near."""
        return all(map(_is_near, self.now(), expected, self.copies))


def _is_near(found: Tensor, expected: Tensor, before: Tensor) -> bool:
    if not found.is_floating_point():
        return torch.equal(found, expected)
    return bool((found - expected).norm() <= TOLERANCE * (expected - before).norm())


def _seed(seed: int, device: torch.device) -> None:
    """Let the generators begin at a seed; the caller gives them their states back."""
    torch.default_generator.manual_seed(seed % 2**63)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed % 2**63)


@contextmanager
def _side_stream(device: torch.device) -> Iterator[None]:
    """Within, CUDA computes beside the stream of the caller, as is needed to warm up and to capture."""
    if device.type != "cuda":
        yield
        return
    present, side = torch.cuda.current_stream(), _side_stream_of(torch.cuda.current_device())
    side.wait_stream(present)
    try:
        with torch.cuda.stream(side):
            yield
    finally:
        present.wait_stream(side)


@cache
def _side_stream_of(place: int) -> torch.cuda.Stream:
    """One for all fits: cuBLAS keeps memory for each stream that it has worked on."""
    return torch.cuda.Stream(place)


def captured(run: Callable[[], None]) -> Callable[[], None]:
    """Record what a function launches on the present stream of CUDA, which computes nothing; what launches it again.

    A replay draws as the function would: torch gives it the present seed of the device's generator and its place.
    """
    # other threads may go on using the device, as long as they keep to other streams
    options = dict(stream=torch.cuda.current_stream(), capture_error_mode="thread_local")
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, **options):
            run()
    except Exception:
        _failed.append(graph)
        # a capture that failed leaves the generator as if it went on, in which no other draw is possible
        with torch.cuda.graph(torch.cuda.CUDAGraph(), **options):
            torch.zeros((), device="cuda")
        raise
    return graph.replay
