"""Modules and optimizers <-> NumPy arrays, which is what a pickle of an estimator has of them."""

import inspect

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "load_module_arrays",
    "load_optimizer_arrays",
    "load_state",
    "module_arrays",
    "optimizer_arrays",
    "state",
    "upgraded",
]


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


def upgraded(estimator: type, state: dict) -> dict:
    """The state of an estimator as this version has it, from a file of this version or an earlier one, 0.1.0.

    The optimizer's state is not kept: `partial_fit` goes on with averages of its own.
    """
    if "_architecture" not in state:
        return state
    if state.get("condition_encoder_") is not None:
        raise ValueError(
            f"This {estimator.__name__} was fitted with skae 0.1.0, whose conditions later versions do not read. Fit "
            "it again, or read it with 0.1.0."
        )
    parameters = list(inspect.signature(estimator.__init__).parameters.values())[1:]
    given = {each.name: state.get(each.name, each.default) for each in parameters}
    of_the_fit = {name: value for name, value in state["_architecture"].items() if name in given}
    gone = {"_architecture", "_n_inputs", "_n_passes", "_optimizer_state", "code_followers_", "condition_encoder_"}
    kept = {name: value for name, value in state.items() if name.startswith("_") or name.endswith("_")}
    kept = {name: value for name, value in kept.items() if name not in gone}
    added = {"_parameters_of_fit_": given | of_the_fit, "_network_seed_": 0, "_optimizer_state_": {}}
    added |= {"_n_passes_": state.get("_n_passes", 0), "_first_rows_": None}
    added |= {"_missing_": False, "_columns_": None, "_container_": None}
    if "code_frequencies_" in state:
        added |= _counts_of_codes(state)
    if {"likelihood", "adversary_weight"} & given.keys():  # codes have the units of the prior
        kept["module_"] = {name: value for name, value in state["module_"].items() if name != "code_scale"}
    return given | kept | added


def _counts_of_codes(state: dict) -> dict:
    """Of VQVAE: how many rows have each code, and which pairs of codes follow each other."""
    frequencies, followers = state["code_frequencies_"], [np.asarray(each) for each in state["code_followers_"]]
    n_rows = followers[0].sum() if followers else state["n_samples_"]
    places = [np.nonzero(each) for each in followers]
    pairs = [np.column_stack([*place, each[place]]) for place, each in zip(places, followers, strict=True)]
    return {"n_codes_": frequencies.shape[1], "_code_counts_": frequencies * n_rows, "_code_pairs_": pairs}
