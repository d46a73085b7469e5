"""Networks of one shape trained as one: vmap over a member's unchanged loss, and one Adam for all."""

import inspect
import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pickle import PicklingError
from time import perf_counter
from types import MethodType
from weakref import WeakKeyDictionary

import joblib
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ._adam import Adam
from ._training import Epoch, random_order, reproducible, seeded, threads_for, train_alone

__all__ = ["Stacks"]

# Of fewer networks an epoch takes no less time together than one after the other.
LEAST_NETWORKS = 4
# Weights, gradients and moments of more networks of the default widths are not in the processor's caches any more.
MOST_NETWORKS = 32
# Numbers of the rows that are put side by side at once.
NUMBERS_AT_ONCE = 2**20
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

    def train(self, epochs: list[Epoch]) -> list[tuple[float, float]]:
        """Train each network for one epoch; of each its mean loss and its share of the time, in seconds."""
        results = [(math.nan, 0.0)] * len(epochs)
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

    def _train(self, epochs: list[Epoch]) -> list[float]:
        if len(epochs) >= LEAST_NETWORKS:
            try:
                return train_stacked(epochs)
            except Exception:
                # what vmap cannot do, or an error that the loop of one network will meet too: no network has changed
                self.refused.add(self.kinds[epochs[0].network])
        return [train_alone(epoch) for epoch in epochs]


def kind_of(epoch: Epoch) -> tuple | None:
    """What the networks of a stack have in common, whatever the epoch; None if this one is trained alone."""
    (loss, optimizer), *others = epoch.pairs
    if others or type(epoch.data.x) is not Tensor or type(optimizer) is not Adam or not optimizer.fused:
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
        warnings.filterwarnings("error", message=".*performance drop")  # a loop within vmap: no faster than ours
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
    at_once = size * max(1, NUMBERS_AT_ONCE // (len(epochs) * size * first.data.x.shape[1]))
    for start in range(0, len(first.rows), at_once):
        rows = torch.stack([e.data.x[order[start : start + at_once]] for e, order in zip(epochs, orders, strict=True)])
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
        self.names = [name for name, _ in first.network.named_parameters()]
        self.groups = [Group(epochs, place) for place, g in enumerate(optimizer.param_groups) if g["params"]]
        trained = {name for group in self.groups for name in group.names}
        tensors = [dict(_tensors(epoch.network)) for epoch in epochs]
        self.constants = {
            f"network.{name}": torch.stack([each[name].detach() for each in tensors])
            for name in tensors[0]
            if name not in trained
        }
        self.leaves = [leaf for group in self.groups for leaf in group.leaves]
        function = WithLoss(first.network.train(), without_estimator(loss))
        self.losses = vmap(
            lambda weights, constants, x: functional_call(function, (weights, constants), (x,)), randomness=randomness
        )
        self.rates, self.adam = [epoch.schedule.rate(epoch.done) for epoch in epochs], Adam([], optimizer.betas, True)
        self.blocks = [block for group in self.groups for block in group.blocks(self.adam)]

    def step(self, batch: Tensor, share: float) -> Tensor:
        """One step of each network on its batch; the mean losses."""
        weights = {f"network.{name}": tensor for group in self.groups for name, tensor in group.weights.items()}
        values = self.losses(weights, self.constants, batch)
        if values.shape != batch.shape[:2]:
            raise ValueError("The loss does not give one value for each row.")
        means = values.mean(1)
        gradients = iter(torch.autograd.grad(means.sum(), self.leaves))
        for group in self.groups:
            group.set_gradients([next(gradients) for _ in group.leaves])
        for place, group in self.blocks:
            group["lr"] = self.rates[place](share)
        self.adam.step()
        return means.detach()

    @torch.no_grad()
    def write_back(self) -> None:
        """Give the networks and their optimizers what they would have alone."""
        for place, epoch in enumerate(self.epochs):
            for name, tensor in _tensors(epoch.network):
                if f"network.{name}" in self.constants:
                    tensor.copy_(self.constants[f"network.{name}"][place])
        for group in self.groups:
            group.write_back()


class WithLoss(nn.Module):
    """A network whose forward pass is a loss."""

    def __init__(self, network: nn.Module, loss: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, x: Tensor) -> Tensor:
        return self.loss(self.network, x)


def without_estimator(loss: MethodType) -> MethodType:
    """A loss that can read no more of its estimator than the parameters that all networks of a stack share."""
    bare = object.__new__(type(loss.__self__))
    vars(bare).update(_parameters(loss.__self__))
    return MethodType(loss.__func__, bare)


class Group:
    """A group of parameters of each network's optimizer, side by side.

    Matrices are kept transposed, as the gradient of a weight comes out of a product of stacked matrices.
    """

    def __init__(self, epochs: list[Epoch], place: int) -> None:
        self.epochs, self.optimizers = epochs, [epoch.pairs[0][1] for epoch in epochs]
        groups = [optimizer.param_groups[place] for optimizer in self.optimizers]
        self.parameters, self.decays = [g["params"] for g in groups], [g["weight_decay"] for g in groups]
        names = {id(parameter): name for name, parameter in epochs[0].network.named_parameters()}
        self.names = [names[id(parameter)] for parameter in self.parameters[0]]
        self.dims = [parameter.ndim for parameter in self.parameters[0]]
        self.flat = self._side_by_side(lambda optimizer, parameter: parameter.detach())
        self.gradient = torch.empty_like(self.flat)
        self.moments = {kind: self._side_by_side(partial(_state, kind)) for kind in ("exp_avg", "exp_avg_sq")}
        self.leaves = [leaf.detach().requires_grad_() for leaf in self._parts(self.flat)]

    @property
    def weights(self) -> dict[str, Tensor]:
        return {name: _turned(*part) for name, *part in zip(self.names, self.leaves, self.dims, strict=True)}

    def set_gradients(self, gradients: list[Tensor]) -> None:
        torch.cat([gradient.flatten(1) for gradient in gradients], 1, out=self.gradient)

    def blocks(self, adam: Adam) -> Iterator[tuple[int, dict]]:
        """Add groups to Adam, of neighbours with the same rates; of each the place of its first network."""
        steps = float(_state("step", self.optimizers[0], self.parameters[0][0]))
        rates = [_rates(epoch) for epoch in self.epochs]
        starts = [place for place in range(len(rates)) if place == 0 or rates[place] != rates[place - 1]]
        for start, end in zip(starts, [*starts[1:], len(rates)], strict=True):
            block, self.step = self.flat[start:end], torch.tensor(steps, device=self.flat.device)
            block.grad = self.gradient[start:end]
            adam.state[block] = {"step": self.step, **{kind: m[start:end] for kind, m in self.moments.items()}}
            adam.param_groups.append({"params": [block], "lr": 0.0, "weight_decay": self.decays[start]})
            yield start, adam.param_groups[-1]

    def write_back(self) -> None:
        kinds = {"weights": self.flat, **self.moments}
        parts = {kind: self._parts(tensor) for kind, tensor in kinds.items()}
        for place, (optimizer, parameters) in enumerate(zip(self.optimizers, self.parameters, strict=True)):
            step = self.step.clone()
            for which, parameter in enumerate(parameters):
                own = {kind: _turned(part[which][place], parameter.ndim) for kind, part in parts.items()}
                parameter.copy_(own.pop("weights"))
                moments = {kind: moment.clone(memory_format=torch.contiguous_format) for kind, moment in own.items()}
                optimizer.state[parameter] = {"step": step, **moments}

    def _side_by_side(self, of: Callable[[Adam, Tensor], Tensor]) -> Tensor:
        """What there is of each parameter, as (n_networks, n_weights)."""
        return torch.stack(
            [
                torch.cat([_turned(of(optimizer, parameter), parameter.ndim).reshape(-1) for parameter in parameters])
                for optimizer, parameters in zip(self.optimizers, self.parameters, strict=True)
            ]
        )

    def _parts(self, flat: Tensor) -> list[Tensor]:
        """Of each parameter its part of (n_networks, n_weights), as (n_networks, *shape) with matrices transposed."""
        shapes = [_turned(parameter, parameter.ndim).shape for parameter in self.parameters[0]]
        parts = flat.split([shape.numel() for shape in shapes], 1)
        return [part.unflatten(1, shape) if shape else part[:, 0] for part, shape in zip(parts, shapes, strict=True)]


def _state(kind: str, optimizer: Adam, parameter: Tensor) -> Tensor:
    if parameter in optimizer.state:
        return optimizer.state[parameter][kind]
    return torch.zeros(()) if kind == "step" else torch.zeros_like(parameter)


def _turned(tensor: Tensor, n_dims: int) -> Tensor:
    """Transposed, if the parameter of one network, with so many dimensions, is a matrix."""
    return tensor.mT if n_dims == 2 else tensor
