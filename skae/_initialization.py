"""The networks that training starts from, and PCA as the one to fall back to."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ._axes import EXACT_SIZE, PrincipalAxes, axes_by_covariance, principal_axes
from ._distributed import gathered, several, share, total
from ._mapped import MOST_NUMBERS, MOST_ROWS, EveryRow, MappedRows, indices
from ._rows import SparseRows, TableRows, representative
from ._training import Data, reproducible

__all__ = ["Initialization", "axes_of"]

Rows = Tensor | SparseRows | MappedRows


class Initialization:
    """Networks for the rows of data, initialized from them.

    build: function of the number of components that gives a network with random weights, the same at every call.
    n_components: a number, or the share of the variance that the components must explain. init: "pca" or "random".
    """

    def __init__(
        self, build: Callable[[int], nn.Module], data: Data, n_components: float, init: str, seed: int
    ) -> None:
        self.x, self.rows, self.weights, self.seed = data.x, data.rows, data.weights, seed
        by_share = n_components < 1
        self.random = build(1 if by_share else int(n_components))
        self.from_pca = init == "pca" and getattr(self.random, "has_pca", True)
        if self.from_pca and not hasattr(self.random, "initialize"):
            raise ValueError(
                f"init='pca' needs a network with the method initialize, which {type(self.random).__name__} does not "
                "have. Use init='random'."
            )
        if by_share and isinstance(data.x, SparseRows) and min(len(data.rows), data.x.shape[1]) > EXACT_SIZE:
            raise ValueError(
                f"n_components={n_components} is a share of the variance, which needs all principal axes: too many of "
                f"a sparse X with more than {EXACT_SIZE} rows and features. Use an integer."
            )
        self.fills = getattr(self.random, "fills", False)
        if by_share or self.from_pca or self.fills:
            n_axes = min(total(len(data.rows)), data.x.shape[1]) if by_share else int(n_components)
            with reproducible(seed, data.x.device):
                axes = self._axes(n_axes, _in_order(data))
        if by_share:
            n_components = _components_of_share(n_components, axes)
            self.random = build(n_components)
        self.latest: tuple[Tensor, PrincipalAxes] | None = None
        self.axes = axes.first(n_components) if self.from_pca or self.fills else None

    def network(self, init: str = "pca", rows: Tensor | None = None) -> nn.Module:
        """A network at PCA of some rows, or of all, if init is "pca" and it can be; otherwise with random weights."""
        network, whole = copy.deepcopy(self.random), rows is None or len(rows) == len(self.rows)
        axes, from_pca = None, init == "pca" and self.from_pca
        with reproducible(self.seed, self.x.device):
            if from_pca or self.fills:
                axes = self.axes if whole else self._axes_of(rows)
        with reproducible(self.seed, self.x.device):
            if self.fills:
                network.fill_by(axes)
            self._initialize(network, self.rows if whole else rows, axes if from_pca else None)
        return share(network)

    def _axes_of(self, rows: Tensor) -> PrincipalAxes:
        """The axes of some rows, which each initialization of them may ask for."""
        if self.latest is None or self.latest[0] is not rows:
            self.latest = rows, self._axes(len(self.axes.axes), rows).first(len(self.axes.axes))
        return self.latest[1]

    def _initialize(self, network: nn.Module, rows: Tensor, axes: PrincipalAxes | None) -> None:
        if hasattr(network, "initialize"):
            x, weights = self.x, self.weights
            if isinstance(x, MappedRows) or several():
                x, rows, weights = _some(x, rows, weights)
            if weights is not None:
                rows = representative(rows, weights[rows.cpu()])
            network.initialize(x, rows, axes)

    def _axes(self, n_axes: int, rows: Tensor | None) -> PrincipalAxes:
        return _axes(self.random, self.x, n_axes, rows, self.weights)


def axes_of(network: nn.Module, data: Data, n_axes: int) -> PrincipalAxes:
    """The leading principal axes of all rows, as a network takes them."""
    x = data.x
    if isinstance(x, TableRows) and not getattr(network, "fills", False) and bool(x.isnan().any()):
        x = TableRows.of(x.nan_to_num(0.0), x.weights)  # one that was fitted to complete rows sees the mean there
    return _axes(network, x, n_axes, _in_order(data), data.weights).first(n_axes)


def _axes(
    network: nn.Module, x: Rows, n_axes: int, rows: Tensor | EveryRow | None, weights: Tensor | None
) -> PrincipalAxes:
    by_covariance = x.shape[1] <= EXACT_SIZE and _is_pca(network)
    if several() and by_covariance:
        return axes_by_covariance(x, rows, weights)
    if several() or (isinstance(x, MappedRows) and not by_covariance):
        x, rows, weights = _some(x, rows, weights)
    return getattr(network, "principal_axes", principal_axes)(x, n_axes, rows, weights)


def _some(x: Rows, rows: Tensor | EveryRow | None, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rows for whatever takes a tensor of few, their indices and weights: of a memory map, or of all processes."""
    places = torch.arange(len(x), device=x.device) if rows is None else indices(rows)
    if several():
        n_own = len(x if rows is None else rows)  # of a map there are places for some
        n_here = min(MOST_ROWS, MOST_NUMBERS // x.shape[1]) * n_own // total(n_own)
        n_here = min(len(places), max(1, n_here))
        places = places[torch.linspace(0, len(places) - 1, n_here).long().to(places.device)]
    found = gathered(x[places])
    weights = None if weights is None else gathered(weights[places.cpu()])
    return found, torch.arange(len(found), device=found.device), weights


def _in_order(data: Data) -> Tensor | EveryRow | None:
    """The rows of data; None if they are all rows of its tensor."""
    if isinstance(data.rows, EveryRow):
        return data.rows
    return None if len(data.rows) == len(data.x) else data.rows.sort().values


def _is_pca(network: nn.Module) -> bool:
    """Whether its principal axes are those of complete rows."""
    return not getattr(network, "fills", False) and not getattr(network, "n_conditions", 0)


def _components_of_share(share: float, axes: PrincipalAxes) -> int:
    """The fewest components that explain more than a share of the variance, as scikit-learn's PCA counts them."""
    explained = np.cumsum(axes.variances.numpy(force=True)) / (axes.total or 1.0)
    return max(1, min(int(np.searchsorted(explained, share, side="right")) + 1, len(explained)))
