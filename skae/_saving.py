"""Modules and optimizers <-> NumPy arrays, which is what a pickle of an estimator has of them."""

import numpy as np
import torch
from torch import nn

from ._training import Pair

__all__ = ["load_module_arrays", "load_optimizer_arrays", "module_arrays", "optimizer_arrays"]


def module_arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """Parameters and buffers by name, those too that are not persistent; float32, in which they were trained."""
    state = {**dict(module.named_buffers()), **module.state_dict()}
    return {name: _float32(value.numpy(force=True)) for name, value in state.items()}


def load_module_arrays(module: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    """Copy arrays into a module of the same architecture."""
    buffers = dict(module.named_buffers())
    persistent = module.state_dict().keys()
    module.load_state_dict({name: torch.tensor(arrays[name]) for name in arrays if name in persistent})
    for name in buffers.keys() - persistent:
        buffers[name].copy_(torch.tensor(arrays[name]))


def optimizer_arrays(pairs: list[Pair]) -> dict[str, dict[str, np.ndarray]]:
    """States of the optimizers of pairs, by the place of the pair and of the weights: ``"0.3"``."""
    return {
        f"{place}.{i}": {name: value.numpy(force=True) for name, value in state.items()}
        for place, (_, optimizer) in enumerate(pairs)
        for i, state in optimizer.state_dict()["state"].items()
    }


def load_optimizer_arrays(pairs: list[Pair], arrays: dict[str, dict[str, np.ndarray]]) -> None:
    """Give the optimizers of pairs for the same weights their states back."""
    for place, (_, optimizer) in enumerate(pairs):
        state = {
            int(key.split(".")[1]): {name: torch.tensor(value) for name, value in values.items()}
            for key, values in arrays.items()
            if key.startswith(f"{place}.")
        }
        if state:
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float64 else array
