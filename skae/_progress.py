"""How far the training of a fit is, as arrays: what it takes to go on in another process."""

import hashlib

import numpy as np
import torch
from torch import Tensor, nn

from ._distributed import gathered, several, told_by_first, total
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
        self._loaded: dict | None = None
        self._rows_of_all = _of_rows(data) if several() else None  # now, as it takes all processes

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
        self._loaded = arrays
        for place, run in enumerate(self.runs):
            _load_run(run, arrays["runs"][str(place)])
        self.active = [self.runs[place] for place in arrays["active"]]
        self.n_done, self.n_refitted = int(arrays["n_done"]), int(arrays.get("n_refitted", 0))
        self._refit_to_load = arrays.get("refitted")

    def share(self) -> None:
        """Let all processes go on from where the first does."""
        loaded = told_by_first(self._loaded)
        if loaded is not self._loaded:
            self.load(loaded)
        self._loaded = None

    def origin(self) -> dict[str, np.ndarray]:
        """What tells this fit from one of other rows or weights, before it has trained: the same up to rounding."""
        folds, rows = _of_rows(self.data) if self._rows_of_all is None else self._rows_of_all
        norms = [
            value.double().norm() if value.device.type != "mps" else value.cpu().double().norm()
            for run in self.runs
            for network, _ in run.networks
            for value in network.parameters()
        ]
        source = self.data.source
        beside = (
            {"neighbors": source.neighbors.double().mean(0).numpy(force=True)} if hasattr(source, "neighbors") else {}
        )
        return beside | {
            "processes": np.array(len(folds)),
            "folds": np.array(bytes(folds.flatten().tolist()).hex()),
            "rows": rows.numpy(),
            "weights": torch.stack(norms).numpy(force=True),
        }


def _of_rows(data: Data) -> tuple[Tensor, Tensor]:
    """Of each process a digest of its folds, and of all processes sums over some rows and their weights."""
    x, folds = data.x, hashlib.blake2b(digest_size=16)
    for fold in data.folds:
        for rows in fold:
            folds.update(str(len(rows)).encode() + indices(rows).numpy(force=True).tobytes())
            if isinstance(rows, EveryRow):
                folds.update(rows.held_out.numpy().tobytes())
    n_rows = max(1, min(len(x), rows_at_once(x.shape[1]) * len(x) // total(len(x))))
    some = torch.linspace(0, len(x) - 1, n_rows, dtype=torch.float64).long()
    rows = x[some.to(x.device)].as_subclass(Tensor).cpu().double().nan_to_num(0.0)
    columns = torch.arange(1.0, x.shape[1] + 1, dtype=torch.float64).cos()  # in another order they differ
    values = [rows @ columns, *([] if data.weights is None else [data.weights[some]])]
    return gathered(torch.tensor([list(folds.digest())], dtype=torch.uint8)), gathered(torch.cat(values))


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
