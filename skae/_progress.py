"""How far the training of a fit is, as arrays: what it takes to go on in another process."""

import hashlib

import numpy as np
import torch
from torch import Tensor, nn

from ._mapped import EveryRow, indices
from ._rows import rows_at_once
from ._saving import load_optimizer_arrays, load_state, optimizer_arrays, state
from ._training import Data, Pair

__all__ = ["Progress"]


class Progress:
    """The networks of a fit that train, and how many epochs each has done.

    All else that an epoch depends on is a function of the data, the parameters and its number. runs: the trainings of
    which one is chosen; active are those that train on, and n_done is their number of epochs. n_refitted: that of the
    network of all rows, which follows.
    """

    def __init__(self, runs: list, data: Data) -> None:
        self.runs, self.active, self.data = runs, list(runs), data
        self.n_done = self.n_refitted = 0
        self.refitted: tuple[nn.Module, list[Pair]] | None = None
        self._refit_to_load: dict | None = None

    def refit(self, network: nn.Module, pairs: list[Pair]) -> int:
        """Let the network of all rows follow; how many epochs it has done."""
        self.refitted = network, pairs
        if self._refit_to_load is not None:
            _load_network(self.refitted, self._refit_to_load)
        return self.n_refitted

    def arrays(self) -> dict:
        """Arrays and dictionaries of them, by name; of tensors on the processor they share the memory."""
        arrays = {
            "n_done": np.array(self.n_done),
            "active": np.array([self.runs.index(run) for run in self.active], dtype=int),
            "runs": {str(place): _run_arrays(run) for place, run in enumerate(self.runs)},
        }
        if self.refitted is not None:
            arrays |= {"n_refitted": np.array(self.n_refitted), "refitted": _network_arrays(self.refitted)}
        return arrays

    def load(self, arrays: dict) -> None:
        """Go on from there: the runs are those of the same fit, at their initialization."""
        for place, run in enumerate(self.runs):
            _load_run(run, arrays["runs"][str(place)])
        self.active = [self.runs[place] for place in arrays["active"]]
        self.n_done, self.n_refitted = int(arrays["n_done"]), int(arrays.get("n_refitted", 0))
        self._refit_to_load = arrays.get("refitted")

    def origin(self) -> dict[str, np.ndarray]:
        """What tells this fit from one of other rows or weights, before it has trained: the same up to rounding."""
        x, folds = self.data.x, hashlib.blake2b(digest_size=16)
        for fold in self.data.folds:
            for rows in fold:
                folds.update(str(len(rows)).encode() + indices(rows).numpy(force=True).tobytes())
                if isinstance(rows, EveryRow):
                    folds.update(rows.held_out.numpy().tobytes())
        some = torch.linspace(0, len(x) - 1, min(len(x), rows_at_once(x.shape[1])), dtype=torch.float64).long()
        rows = x[some.to(x.device)].as_subclass(Tensor).cpu().double().nan_to_num(0.0)
        values = [
            rows @ torch.arange(1.0, x.shape[1] + 1, dtype=torch.float64).cos()
        ]  # columns in another order differ
        if self.data.weights is not None:
            values.append(self.data.weights[some])
        norms = [
            value.double().norm() if value.device.type != "mps" else value.cpu().double().norm()
            for run in self.runs
            for network, _ in run.networks
            for value in network.parameters()
        ]
        return {
            "folds": np.array(folds.hexdigest()),
            "rows": torch.cat(values).numpy(),
            "weights": torch.stack(norms).numpy(force=True),
        }


def _network_arrays(trained: tuple[nn.Module, list[Pair]]) -> dict:
    network, pairs = trained
    optimizers = optimizer_arrays([optimizer for _, optimizer in pairs])
    return {"network": _arrays(state(network)), "optimizers": optimizers}


def _load_network(trained: tuple[nn.Module, list[Pair]], arrays: dict) -> None:
    network, pairs = trained
    load_state(network, _tensors(arrays["network"], network))
    load_optimizer_arrays([optimizer for _, optimizer in pairs], arrays.get("optimizers", {}))


def _run_arrays(run) -> dict:
    arrays = {
        "networks": {str(fold): _network_arrays(trained) for fold, trained in enumerate(run.networks)},
        "initial": run.initial.numpy(),
        "best": run.best.numpy(),
        "loss_curve": np.array(run.loss_curve, dtype=float),
        "validation_curve": np.array(run.validation_curve, dtype=float),
        "counts": np.array([run.best_epoch, run.n_waited, run.diverged_in or 0]),
    }
    return arrays | ({} if run.weights is None else {"weights": _arrays(run.weights)})


def _load_run(run, arrays: dict) -> None:
    for fold, trained in enumerate(run.networks):
        _load_network(trained, arrays["networks"][str(fold)])
    run.initial, run.best = torch.tensor(arrays["initial"]), torch.tensor(arrays["best"])
    run.loss_curve, run.validation_curve = arrays["loss_curve"].tolist(), arrays["validation_curve"].tolist()
    run.best_epoch, run.n_waited, diverged_in = arrays["counts"].tolist()
    run.diverged_in = diverged_in or None
    run.weights = _tensors(arrays["weights"], run.network) if "weights" in arrays else None


def _arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy(force=True) for name, value in tensors.items()}


def _tensors(arrays: dict[str, np.ndarray], network: nn.Module) -> dict[str, Tensor]:
    device = next(network.parameters()).device
    return {name: torch.tensor(value, device=device) for name, value in arrays.items()}
