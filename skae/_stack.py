"""Networks of one shape trained as one: vmap over a member's unchanged loss, and one Adam for all."""

import inspect
import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate, islice
from pickle import PicklingError
from time import perf_counter
from types import MethodType
from typing import NamedTuple
from weakref import WeakKeyDictionary

import joblib
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ._adam import Adam
from ._training import Epoch, losses_of, random_order, reproducible, seeded, threads_for, train_alone, trains_together
from ._vmapped import as_alone, padded

__all__ = ["Stacks", "folds_together"]

# Of fewer networks an epoch takes no less time together than one after the other.
LEAST_NETWORKS = 4
# The calls of a step are shared by so many. With more, their weights, gradients and moments leave the caches.
MOST_NETWORKS = 64
# Numbers of the rows that are put side by side at once.
NUMBERS_AT_ONCE = 2**20
# Numbers in a register of the processor, as torch's kernels were built for it.
WIDTH = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8
# Parameters of an estimator that may differ between networks trained as one: its loss is not given them.
APART = ("alpha", "learning_rate_init", "max_iter", "n_iter_no_change", "random_state", "tol")


class Stacks:
    """Trains an epoch of many networks: those of one kind together, the others one after another.

    A network is of the kind of another if the class of their estimators, the parameters of the loss and the structure
    of the networks are the same, if they have done as many epochs, and if as many rows, in batches as large, are drawn
    with the same seed: each draws then what it would draw alone. With ``random_state=None`` seeds differ and so do the
    draws.
    """

    def __init__(self) -> None:
        self.kinds: WeakKeyDictionary[nn.Module, tuple | None] = WeakKeyDictionary()
        self.refused: set[tuple] = set()

    def train(self, epochs: list[Epoch]) -> list[tuple[float | Exception, float]]:
        """Train each network for one epoch; of each its mean loss or an error, and its share of the time, seconds."""
        results: list[tuple[float | Exception, float]] = [(math.nan, 0.0)] * len(epochs)
        for places in self._parts(epochs):
            begun = perf_counter()
            losses = self._train([epochs[place] for place in places])
            seconds = (perf_counter() - begun) / len(places)
            for place, loss in zip(places, losses, strict=True):
                results[place] = loss, seconds
        return results

    def _parts(self, epochs: list[Epoch]) -> Iterator[list[int]]:
        """Places of the epochs that are trained together, sorted so that those of one learning rate are neighbours."""
        by_kind = defaultdict(list)
        for place, epoch in enumerate(epochs):
            by_kind[self._kind_now(epoch) or place].append(place)
        for places in by_kind.values():
            places.sort(key=lambda place: _rates(epochs[place]))
            n_parts = math.ceil(len(places) / MOST_NETWORKS)
            size = math.ceil(len(places) / n_parts)
            yield from (places[start : start + size] for start in range(0, len(places), size))

    def _kind_now(self, epoch: Epoch) -> tuple | None:
        if epoch.network not in self.kinds:
            self.kinds[epoch.network] = kind_of(epoch)
        kind, (loss, optimizer) = self.kinds[epoch.network], epoch.pairs[0]
        if kind is None or kind in self.refused:
            return None
        seed = None if loss.__self__.random_state is None else epoch.seed
        steps = _steps(optimizer)
        return kind, epoch.done, seed, len(epoch.rows), epoch.batch_size, epoch.data.weights is None, steps

    def _train(self, epochs: list[Epoch]) -> list[float | Exception]:
        if len(epochs) >= LEAST_NETWORKS:
            try:
                return train_stacked(epochs)
            except Exception:
                # what vmap cannot do, or an error that the loop of one network will meet too: no network has changed
                self.refused.add(self.kinds[epochs[0].network])
        return [_loss_or_error(epoch) for epoch in epochs]


def _loss_or_error(epoch: Epoch) -> float | Exception:
    try:
        return train_alone(epoch)
    except Exception as error:  # of one network: the others train on
        return error


@contextmanager
def folds_together(n_folds: int) -> Iterator[None]:
    """Within, the networks of the folds of a fit train together; in a search, those of all fits do already."""
    if n_folds == 1 or trains_together.get() is not None:
        yield
        return
    stacks = Stacks()
    before = trains_together.set(lambda epochs: losses_of([loss for loss, _ in stacks.train(epochs)]))
    try:
        yield
    finally:
        trains_together.reset(before)


def kind_of(epoch: Epoch) -> tuple | None:
    """What the networks of a stack have in common, whatever the epoch; None if this one is trained alone."""
    (loss, optimizer), *others = epoch.pairs
    if others or type(epoch.data.source) is not Tensor or type(optimizer) is not Adam or not optimizer.fused:
        return None
    if not inspect.ismethod(loss) or not hasattr(loss.__self__, "get_params"):
        return None
    names = {id(parameter): name for name, parameter in epoch.network.named_parameters()}
    groups = tuple(tuple(names.get(id(p)) for p in group["params"]) for group in optimizer.param_groups)
    modules = dict(epoch.network.named_modules())
    shapes = tuple(
        (name, tuple(tensor.shape), tensor.dtype, tensor.requires_grad) for name, tensor in _tensors(epoch.network)
    )
    values = {name: _attributes(module) for name, module in modules.items()}, _parameters(loss.__self__)
    try:
        digest = joblib.hash(values)
    except (PicklingError, AttributeError, TypeError):
        return None
    types = tuple((name, type(module)) for name, module in modules.items())
    return loss.__func__, type(loss.__self__), types, shapes, groups, optimizer.betas, epoch.data.x.device, digest


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


def _attributes(module: nn.Module) -> dict:
    """What a module has beside parameters, buffers, modules and hooks."""
    return {name: value for name, value in vars(module).items() if name not in vars(nn.Module())}


def _parameters(estimator: object) -> dict:
    return {name: value for name, value in estimator.get_params(deep=False).items() if name not in APART}


def _steps(optimizer: Adam) -> tuple | None:
    """Numbers of steps that each group has done; None if these differ within it."""
    steps = []
    for group in optimizer.param_groups:
        found = {float(optimizer.state[p]["step"]) if p in optimizer.state else 0.0 for p in group["params"]}
        steps.append(tuple(found))
    return tuple(steps)


def _rates(epoch: Epoch) -> tuple:
    """What the sizes of the steps of a network depend on."""
    groups = epoch.pairs[0][1].param_groups
    return epoch.schedule.learning_rate, epoch.schedule.n_epochs, *(group["weight_decay"] for group in groups)


def train_stacked(epochs: list[Epoch]) -> list[float]:
    """Train networks of one kind for one epoch as one; their mean losses. If this raises, no network has changed."""
    first = epochs[0]
    n_rows, device = len(first.rows), first.data.x.device
    n_threads = threads_for(first.network, len(epochs) * first.batch_size)
    same_draws = len({epoch.seed for epoch in epochs}) == 1
    stack = Stack(epochs, "same" if same_draws else "different")
    total = torch.zeros(len(epochs), device=device)
    with reproducible(first.seed, device, n_threads), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*performance drop")  # of an operation that vmap does in a loop
        for start, batch in _batches(epochs, _orders(epochs)):
            total += stack.step(batch, start / n_rows) * batch.shape[1]
    stack.write_back()
    return (total / n_rows).tolist()


def _orders(epochs: list[Epoch]) -> list[Tensor]:
    """The order of the rows of each network; the generator is then where that of the first network would be."""
    orders = []
    for epoch in epochs[1:]:
        with seeded(epoch.seed, epoch.data.x.device):
            orders.append(random_order(epoch.rows, epoch.data.weights))
    return [random_order(epochs[0].rows, epochs[0].data.weights), *orders]


def _batches(epochs: list[Epoch], orders: list[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """The place of each batch in the epoch, and its rows for each network, (n_networks, n_rows, n_features)."""
    first, size = epochs[0], epochs[0].batch_size
    at_once = size * max(1, NUMBERS_AT_ONCE // (len(epochs) * size * first.data.source.shape[1]))
    for start in range(0, len(first.rows), at_once):
        rows = torch.stack(
            [e.data.source[order[start : start + at_once]] for e, order in zip(epochs, orders, strict=True)]
        )
        for place in range(0, rows.shape[1], size):
            yield start + place, rows[:, place : place + size]


class Stack:
    """Networks of one kind side by side, and the Adam that steps them.

    Each group of parameters of their optimizers is one tensor here, (n_networks, n_weights), of weights, of gradients
    and of either moment: a step of all networks with the same learning rate and decay is one call.
    """

    def __init__(self, epochs: list[Epoch], randomness: str) -> None:
        self.epochs, first = epochs, epochs[0]
        loss, optimizer = first.pairs[0]
        self.groups = [Group(epochs, place) for place, g in enumerate(optimizer.param_groups) if g["params"]]
        trained = {name for group in self.groups for name in group.names}
        tensors = [dict(_tensors(epoch.network)) for epoch in epochs]
        self.constants = {
            f"network.{name}": torch.stack([each[name].detach() for each in tensors])
            for name in tensors[0]
            if name not in trained
        }
        self.weights = {
            f"network.{name}": tensor
            for group in self.groups
            for name, tensor in zip(group.names, group.weights, strict=True)
        }
        function = WithLoss(first.network.train(), without_estimator(loss))
        ties = _has_ties(first.network)  # to look for them takes time in every call
        self.losses = vmap(
            lambda *values: functional_call(function, values[:2], values[2:], tie_weights=ties), randomness=randomness
        )
        self.rates, self.adam = [epoch.schedule.rate(epoch.done) for epoch in epochs], Adam([], optimizer.betas, True)
        self.blocks = [block for group in self.groups for block in group.blocks(self.adam)]

    def step(self, batch: Tensor, share: float) -> Tensor:
        """One step of each network on its batch; the mean losses."""
        with as_alone():
            values = self.losses(self.weights, self.constants, batch)
        if values.shape != batch.shape[:2]:
            raise ValueError("The loss does not give one value for each row.")
        means = values.mean(1)
        gradients = iter(torch.autograd.grad(means.sum(), list(self.weights.values())))
        for group in self.groups:
            group.set_gradients(list(islice(gradients, len(group.names))))
        for place, group in self.blocks:
            group["lr"] = self.rates[place](share)
        self.adam.step()
        for group in self.groups:
            group.after_step()
        return means.detach()

    @torch.no_grad()
    def write_back(self) -> None:
        """Give the networks and their optimizers what they would have alone."""
        for place, epoch in enumerate(self.epochs):
            epoch.network.train()
            for name, tensor in _tensors(epoch.network):
                if f"network.{name}" in self.constants:
                    tensor.copy_(self.constants[f"network.{name}"][place])
        for group in self.groups:
            group.write_back()


def _has_ties(network: nn.Module) -> bool:
    """Whether a tensor has several names."""
    n_names = sum(1 for _ in network.named_parameters(remove_duplicate=False))
    n_names += sum(1 for _ in network.named_buffers(remove_duplicate=False))
    return n_names > sum(1 for _ in _tensors(network))


class WithLoss(nn.Module):
    """A network whose forward pass is a loss."""

    def __init__(self, network: nn.Module, loss: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, x: Tensor) -> Tensor:
        return self.loss(self.network, x)


def without_estimator(loss: MethodType) -> MethodType:
    """A loss that can read no more of its estimator than the parameters that all networks of a stack share.

    To read what else the estimator has, or to change it, is an error.
    """
    estimator = loss.__self__

    def refuse(bare: object, name: str, *value: object) -> None:
        if value or name in vars(estimator):
            raise NotImplementedError(f"The loss uses {name}, which differs between networks.")
        raise AttributeError(name)

    bare_class = type(type(estimator).__name__, (type(estimator),), {"__getattr__": refuse, "__setattr__": refuse})
    bare = object.__new__(bare_class)
    vars(bare).update(_parameters(estimator))
    return MethodType(loss.__func__, bare)


class Group:
    """A group of parameters of each network's optimizer, side by side: one tensor (n_networks, n_weights).

    The kernel of Adam takes the last elements of a tensor, which do not fill a register, one at a time and rounds them
    otherwise. Those that it would take so of a parameter alone it also takes so here: they have a tensor of their own,
    and what comes out of it counts.
    """

    def __init__(self, epochs: list[Epoch], place: int) -> None:
        self.epochs, self.optimizers = epochs, [epoch.pairs[0][1] for epoch in epochs]
        groups = [optimizer.param_groups[place] for optimizer in self.optimizers]
        self.parameters, self.decays = [g["params"] for g in groups], [g["weight_decay"] for g in groups]
        names = {id(parameter): name for name, parameter in epochs[0].network.named_parameters()}
        self.names = [names[id(parameter)] for parameter in self.parameters[0]]
        self.shapes = [parameter.shape for parameter in self.parameters[0]]
        self.whole = Values(*(self._side_by_side(kind) for kind in Values._fields))
        self.gradients = self._parts(self.whole.gradients)
        self.weights = [part.detach().requires_grad_() for part in self._parts(self.whole.weights)]
        self.last = _last_elements(self.shapes, self.whole.weights.device)
        self.rest = Values(*(values[:, self.last] for values in self.whole))

    def set_gradients(self, gradients: list[Tensor]) -> None:
        torch._foreach_copy_(self.gradients, gradients)
        torch.index_select(self.whole.gradients, 1, self.last, out=self.rest.gradients)

    def after_step(self) -> None:
        self.whole.weights.index_copy_(1, self.last, self.rest.weights)

    def blocks(self, adam: Adam) -> Iterator[tuple[int, dict]]:
        """Add groups to Adam, of neighbours with the same rates; of each the place of its first network."""
        steps = float(_value("step", self.optimizers[0], self.parameters[0][0]))
        rates = [_rates(epoch) for epoch in self.epochs]
        starts = [place for place in range(len(rates)) if place == 0 or rates[place] != rates[place - 1]]
        for start, end in zip(starts, [*starts[1:], len(rates)], strict=True):
            pieces = [[values[start:end]] for values in self.whole]
            if len(self.last):
                for parts, values in zip(pieces, self.rest, strict=True):
                    parts += values[start:end].reshape(-1).split(WIDTH - 1)
            self.step = torch.tensor(steps, device=self.whole.weights.device)
            for weights, gradients, exp_avg, exp_avg_sq in zip(*pieces, strict=True):
                weights.grad = gradients
                adam.state[weights] = {"step": self.step, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
            adam.param_groups.append({"params": pieces[0], "lr": 0.0, "weight_decay": self.decays[start]})
            yield start, adam.param_groups[-1]

    def write_back(self) -> None:
        for values, rest in zip(self.whole, self.rest, strict=True):
            values.index_copy_(1, self.last, rest)
        weights, _, exp_avg, exp_avg_sq = (self._parts(values) for values in self.whole)
        for place, (optimizer, parameters) in enumerate(zip(self.optimizers, self.parameters, strict=True)):
            step = self.step.clone()
            for which, parameter in enumerate(parameters):
                parameter.copy_(weights[which][place])
                moments = {"exp_avg": exp_avg[which][place], "exp_avg_sq": exp_avg_sq[which][place]}
                optimizer.state[parameter] = {"step": step, **moments}

    def _side_by_side(self, kind: str) -> Tensor:
        """What there is of each parameter, as (n_networks, n_weights); between them zeros, where they are aligned."""
        n_weights = sum(padded(shape.numel()) for shape in self.shapes)
        values = self.parameters[0][0].detach().new_zeros(len(self.epochs), n_weights)
        if kind != "gradients":
            for part, parameters in zip(self._parts(values), zip(*self.parameters, strict=True), strict=True):
                sources = [_value(kind, *each) for each in zip(self.optimizers, parameters, strict=True)]
                torch.stack(sources, out=part)
        return values

    def _parts(self, values: Tensor) -> list[Tensor]:
        """Of each parameter its part of (n_networks, n_weights), as (n_networks, *shape)."""
        sizes = [shape.numel() for shape in self.shapes]
        parts = values.split([padded(size) for size in sizes], 1)
        return [
            part[:, :size].unflatten(1, shape) if shape else part[:, 0]
            for part, size, shape in zip(parts, sizes, self.shapes, strict=True)
        ]


class Values(NamedTuple):
    """What Adam has of parameters, each (n_networks, n_weights)."""

    weights: Tensor
    gradients: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor


def _value(kind: str, optimizer: Adam, parameter: Tensor) -> Tensor:
    if kind == "weights":
        return parameter.detach()
    if kind in optimizer.state.get(parameter, ()):
        return optimizer.state[parameter][kind]
    return torch.zeros(()) if kind == "step" else torch.zeros_like(parameter)


def _last_elements(shapes: list[torch.Size], device: torch.device) -> Tensor:
    """Places of the last elements of parameters of these shapes, side by side, that do not fill a register."""
    sizes = [shape.numel() for shape in shapes] if device.type == "cpu" else []
    starts = accumulate([padded(size) for size in sizes], initial=0)
    places = [start + at for start, size in zip(starts, sizes, strict=False) for at in range(size - size % WIDTH, size)]
    return torch.tensor(places, dtype=torch.long, device=device)
