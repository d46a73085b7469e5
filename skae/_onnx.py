"""Fitted networks -> ONNX files: numbers of X to codes, and codes back to numbers of X.

The graph has what the estimator does around the network: mean and scale, indicators of categories, missing cells, and
the units of codes.
"""

import copy
import json
import logging
import os
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["OPSET", "write_onnx"]

# Runtimes have had it since 2023; it is the one that PyTorch's operators are translated to without a conversion.
OPSET = 18


def write_onnx(estimator, path: str | os.PathLike, method: str) -> None:
    """Write what `transform` or `inverse_transform` of a fitted estimator computes; the estimator stays as it is."""
    graphs = {"transform": Encoding, "inverse_transform": Decoding}
    if method not in graphs:
        raise ValueError(f"The 'method' parameter must be a str among {set(graphs)}. Got {method!r} instead.")
    try:
        import onnxscript  # noqa: F401  torch.onnx needs it, and says so less clearly
    except ImportError as error:
        raise ImportError("to_onnx needs the package onnxscript: pip install onnxscript.") from error
    if method == "transform" and getattr(estimator, "transform_neighbors", None) is not None:
        raise ValueError(
            "A graph has no training rows, among which transform_neighbors looks for the nearest. Use "
            "set_params(transform_neighbors=None): the graph then places rows by the network."
        )
    network, scaler = copy.deepcopy(estimator.module_).cpu().requires_grad_(False), estimator._scaler_
    graph = graphs[method](network, scaler, estimator._code_scale())
    program = _exported(graph.eval(), graph.inputs(estimator), graph.output, type(estimator).__name__)
    program.model.metadata_props.update(_metadata(estimator, method))
    program.save(path)


def _exported(graph: nn.Module, inputs: dict[str, Tensor], output: str, name: str) -> Any:
    rows, log = torch.export.Dim("n_samples"), logging.getLogger("torch.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        level = log.level
        log.setLevel(logging.ERROR)  # it says of each operator of torchvision that torchvision is not installed
        try:
            return torch.onnx.export(
                graph,
                tuple(inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=tuple({0: rows} for _ in inputs),
                input_names=list(inputs),
                output_names=[output],
                verbose=False,
            )
        except Exception as error:  # torch has many, the last link of each chain says what is the matter
            while error.__cause__ is not None:
                error = error.__cause__
            reason = str(error).split("\n")[0]
            raise ValueError(f"The network of {name} cannot be written as ONNX: {reason}") from error
        finally:
            log.setLevel(level)


def _metadata(estimator, method: str) -> dict[str, str]:
    """What a reader of the file has to know of its rows: names of the columns, and the categories that codes number."""
    columns = estimator._scaler_._columns_
    if columns is not None:
        known = [{"name": c.name, "categories": c.categories} for c in columns]
    else:
        known = [{"name": name, "categories": None} for name in getattr(estimator, "feature_names_in_", ())]
    return {"estimator": type(estimator).__name__, "method": method, "columns": json.dumps(known, default=str)}


class Encoding(nn.Module):
    """float32 rows of numbers and codes of categories, (n_samples, n_features) -> codes, (n_samples, n_components).

    Mean and scale are computed in float64: the difference of two large numbers of float32 has few digits left. A
    network that takes missing cells is, too: the posterior given the observed ones is a solution of equations.
    """

    output = "codes"

    def __init__(self, network: nn.Module, scaler, code_scale: Tensor | float) -> None:
        super().__init__()
        dtype = torch.float64 if getattr(network, "fills", False) else torch.float32
        self.network, self.scaler, self.dtype = network.to(dtype), scaler, dtype
        self.register_buffer("code_scale", torch.as_tensor(code_scale, dtype=torch.float64).cpu())

    def inputs(self, estimator) -> dict[str, Tensor]:
        return {"X": torch.zeros(3, estimator.n_features_in_)}

    def forward(self, X: Tensor) -> Tensor:
        with Elementary():
            z = self.network.encode(self.scaler.transform(X.double()).to(self.dtype))
            return (z.double() * self.code_scale).float()


class Decoding(Encoding):
    """float32 codes, and the condition if there is one -> rows of numbers and codes of categories."""

    output = "X"

    def inputs(self, estimator) -> dict[str, Tensor]:
        codes, n_given = torch.zeros(3, estimator.n_components_), len(getattr(estimator, "condition_indices_", ()))
        return {"codes": codes} | ({"condition": torch.zeros(3, n_given)} if n_given else {})

    def forward(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        with Elementary():
            z = codes.double() / self.code_scale
            if condition is not None:
                z = torch.cat([z, self.scaler.condition(condition.double())], 1)
            rows = self.scaler.inverse_transform(self.network.decode(z.to(self.dtype)).double())
            if condition is not None:
                rows[:, self.scaler.condition_indices_] = condition.double()
            return rows.float()


class Elementary(TorchFunctionMode):
    """Has functions for which ONNX has no operator computed by those for which it has one."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return ELEMENTARY.get(function, function)(*args, **(kwargs or {}))


def cholesky(a: Tensor) -> Tensor:
    """Lower triangular L of L L' = a, (..., k, k), a column at a time."""
    k, columns = a.shape[-1], []
    for j in range(k):
        column = a[..., j] / a[..., j, j].sqrt()[..., None]
        a = a - column[..., :, None] * column[..., None, :]
        columns.append(torch.where(torch.arange(k) < j, 0.0, column))
    return torch.stack(columns, -1)


def solve_triangular(a: Tensor, b: Tensor, *, upper: bool) -> Tensor:
    """The solution x of a x = b for triangular a, (..., k, k), and b, (..., k, 1)."""
    b, k, x = b.squeeze(-1), a.shape[-1], {}
    for j in reversed(range(k)) if upper else range(k):
        x[j] = b[..., j] / a[..., j, j]
        b = b - a[..., :, j] * x[j][..., None]
    return torch.stack([x[j] for j in range(k)], -1)[..., None]


def cholesky_solve(b: Tensor, factor: Tensor) -> Tensor:
    """The solution x of L L' x = b, (..., k, 1)."""
    return solve_triangular(factor.mT, solve_triangular(factor, b, upper=False), upper=True)


def distances(a: Tensor, b: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    """Euclidean distances, p=2, of the rows of a, (..., n, k), and b, (..., m, k): (..., n, m)."""
    return (a[..., :, None, :] - b[..., None, :, :]).square().sum(-1).sqrt()


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """The error function in float32: onnxruntime has none in float64."""
    return 0.5 * x * (1 + (x / 2**0.5).float().erf().to(x))


def gru(x: Tensor, first: Tensor, weights: list[Tensor], *options: Any) -> tuple[Tensor, Tensor]:
    """The recurrent network in float32: onnxruntime has none in float64."""
    found = torch.gru(x.float(), first.float(), [weight.float() for weight in weights], *options)
    return tuple(each.to(x) for each in found)


ELEMENTARY = {
    torch.gru: gru,
    nn.functional.gelu: gelu,
    torch.linalg.cholesky: cholesky,
    torch.linalg.solve_triangular: solve_triangular,
    torch.cholesky_solve: cholesky_solve,
    torch.cdist: distances,
}
