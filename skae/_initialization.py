"""The networks that training starts from, and PCA as the one to fall back to."""

import copy
from collections.abc import Callable

import numpy as np
from torch import Tensor, nn

from ._networks import EXACT_SIZE, PrincipalAxes, principal_axes
from ._rows import SparseRows, representative
from ._training import Data, reproducible

__all__ = ["Initialization"]


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
        if by_share or self.from_pca:
            n_axes = min(len(data.rows), data.x.shape[1]) if by_share else int(n_components)
            with reproducible(seed, data.x.device):
                axes = self._axes(n_axes, None if len(data.rows) == len(data.x) else data.rows.sort().values)
        if by_share:
            n_components = _components_of_share(n_components, axes)
            self.random = build(n_components)
        self.axes = axes.first(n_components) if self.from_pca else None

    def network(self) -> nn.Module:
        """The network at PCA of all rows, or with random weights."""
        with reproducible(self.seed, self.x.device):
            self._initialize(self.random, self.rows, self.axes)
        return self.random

    def networks(self, training: Tensor, compete: bool) -> tuple[nn.Module, list[nn.Module]]:
        """`network`, and the networks to train, which may look at the training rows only beyond the principal axes.

        Those are the same again and, if two are to compete, one with random weights besides PCA.
        """
        candidates = [self.axes, None] if compete and self.from_pca else [self.axes]
        networks = [*(copy.deepcopy(self.random) for _ in candidates), self.random]
        with reproducible(self.seed, self.x.device):
            # the first is initialized even if it is not needed: the draws for the others come after its own
            self._initialize(networks[0], self.rows, self.axes)
            for network, axes in zip(networks[1:], candidates, strict=True):
                self._initialize(network, training, axes)
        return networks[0], networks[1:]

    def reference(self, fallback: nn.Module, training: Tensor) -> nn.Module:
        """The fallback for the training rows: unlike PCA of all rows, it has not seen the validation rows."""
        network, n_components = copy.deepcopy(fallback), len(self.axes.axes)
        with reproducible(self.seed, self.x.device):
            self._initialize(network, training, self._axes(n_components, training).first(n_components))
        return network

    def _initialize(self, network: nn.Module, rows: Tensor, axes: PrincipalAxes | None) -> None:
        if hasattr(network, "initialize"):
            if self.weights is not None:
                rows = representative(rows, self.weights[rows.cpu()])
            network.initialize(self.x, rows, axes)

    def _axes(self, n_axes: int, rows: Tensor | None) -> PrincipalAxes:
        return getattr(self.random, "principal_axes", principal_axes)(self.x, n_axes, rows, self.weights)


def _components_of_share(share: float, axes: PrincipalAxes) -> int:
    """The fewest components that explain more than a share of the variance, as scikit-learn's PCA counts them."""
    explained = np.cumsum(axes.variances.numpy(force=True)) / (axes.total or 1.0)
    return max(1, min(int(np.searchsorted(explained, share, side="right")) + 1, len(explained)))
