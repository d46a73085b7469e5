"""Modules and optimizers <-> NumPy arrays, which is what a pickle of an estimator has of them."""

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["load_module_arrays", "load_optimizer_arrays", "load_state", "module_arrays", "optimizer_arrays", "state"]


def state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and all buffers by name, the buffers that are not persistent included."""
    return {**dict(module.named_buffers()), **module.state_dict()}


def load_state(module: nn.Module, values: dict[str, Tensor]) -> None:
    """Give a module its state; RuntimeError if that is of another architecture."""
    weights = {}
    for name, value in values.items():
        path, _, leaf = name.rpartition(".")
        buffers = module.get_submodule(path)._buffers
        if leaf not in buffers:
            weights[name] = value
        elif buffers[leaf] is None or 0 in buffers[leaf].stride():  # not set yet, or expanded: it cannot be written to
            buffers[leaf] = value.clone()
        else:
            buffers[leaf].copy_(value)
    missing, unexpected = module.load_state_dict(weights, strict=False)
    other = [*unexpected, *(name for name in missing if name not in values)]
    if other:
        raise RuntimeError(
            f"The network that _build_module gives differs in {', '.join(other)} from the one that was fitted. "
            "Register parameters and buffers in its constructor."
        )


def module_arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """The state as arrays, in float32, the precision of training."""
    return {name: _float32(value.numpy(force=True)) for name, value in state(module).items()}


def load_module_arrays(module: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    load_state(module, {name: torch.tensor(value) for name, value in arrays.items()})


def optimizer_arrays(optimizers: list[torch.optim.Optimizer]) -> dict[str, dict[str, np.ndarray]]:
    """States by the place of the optimizer and of the weights: ``"0.3"``."""
    return {
        f"{place}.{i}": {name: value.numpy(force=True) for name, value in state.items()}
        for place, optimizer in enumerate(optimizers)
        for i, state in optimizer.state_dict()["state"].items()
    }


def load_optimizer_arrays(optimizers: list[torch.optim.Optimizer], arrays: dict[str, dict[str, np.ndarray]]) -> None:
    """Give optimizers of the same weights their states back."""
    for place, optimizer in enumerate(optimizers):
        states = {
            int(key.split(".")[1]): {name: torch.tensor(value) for name, value in values.items()}
            for key, values in arrays.items()
            if key.startswith(f"{place}.")
        }
        if states:
            optimizer.load_state_dict({**optimizer.state_dict(), "state": states})


def _float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float64 else array
