"""Nearest rows, and batches whose rows bring some of their neighbours with them."""

import torch
from torch import Tensor

from ._rows import SparseRows, TableRows

__all__ = ["MOST_EXACT", "NeighborRows", "nearest", "neighbors_of", "squared_distances", "with_classes"]

# Of more rows the neighbours are looked for by an index, unless cells are missing.
MOST_EXACT = 20_000
# Rows whose distances to as many others are computed at once.
BLOCK = 2048
# Of a labelled row at least this share of the neighbours are rows of its class.
CLASS_SHARE = 0.5
# Squared distances per input that differ by less are taken as equal: the rounding of float64, which depends on the rows
# beside a row, is smaller.
RESOLUTION = 2.0**-30


class NeighborRows:
    """Rows x, each with rows that are drawn from its neighbours: x[rows] is (len(rows), 1 + n_drawn, n_inputs).

    In place of a tensor of all rows: ``x[rows]`` with a tensor of indices, ``len(x)``, ``x.shape``, ``x.device``.
    neighbors: indices of the neighbours of each row, (n_rows, n_neighbors).
    """

    def __init__(self, x: Tensor | SparseRows, neighbors: Tensor, n_drawn: int) -> None:
        self.x, self.neighbors, self.n_drawn = x, neighbors, n_drawn
        self.shape, self.device = x.shape, x.device

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Tensor) -> Tensor:
        places = self.neighbors[rows]
        drawn = torch.randint(places.shape[1], (len(rows), self.n_drawn), device=places.device)
        together = torch.cat([rows[:, None], places.gather(1, drawn)], 1)
        batch = self.x[together.flatten()]
        shaped = batch.unflatten(0, together.shape)
        return TableRows.of(shaped, batch.weights) if isinstance(batch, TableRows) else shaped


def neighbors_of(x: Tensor | SparseRows, n_neighbors: int) -> Tensor:
    """Indices of the nearest other rows of each row, nearest first, (n_rows, n_neighbors); fewer if there are fewer.

    Euclidean distances between rows as the network sees them; where cells are missing, those of the cells that both
    rows have, times the share of these. A row without others is its own neighbour.
    """
    n_neighbors = min(n_neighbors, len(x) - 1)
    if n_neighbors == 0:
        return torch.zeros(len(x), 1, dtype=torch.long, device=x.device)
    complete = not isinstance(x, TableRows) or not bool(x.isnan().any())
    if len(x) > MOST_EXACT and complete:
        return _by_index(x, n_neighbors)
    every = torch.arange(len(x), device=x.device)
    return torch.cat([nearest(x[part], x, n_neighbors, part)[0] for part in every.split(BLOCK)])


def nearest(
    queries: Tensor, x: Tensor | SparseRows, n_neighbors: int, own: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Indices of the rows of x that are nearest to queries, nearest first, and whether they have cells in common.

    Both are (n_queries, n_neighbors). own: the index of each query, if it is a row of x: it is not its own neighbour.
    """
    least = torch.empty(len(queries), 0, device=queries.device, dtype=queries.dtype)
    places = torch.empty(len(queries), 0, device=queries.device, dtype=torch.long)
    for part in torch.arange(len(x), device=queries.device).split(BLOCK):
        distances = squared_distances(queries, x[part])
        if own is not None:
            distances[own[:, None] == part] = torch.inf
        least = torch.cat([least, (distances / (RESOLUTION * queries.shape[1])).round_()], 1)
        places = torch.cat([places, part.expand_as(distances)], 1)
        least, kept = least.topk(min(n_neighbors, least.shape[1]), largest=False)
        places = places.gather(1, kept)
    return places, least.isfinite()


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances of rows, (len(a), len(b)), as `neighbors_of` says; infinite where no cell is in both rows.

    Inputs of a table count as in the squared error.
    """
    weights = getattr(b, "weights", None)
    if weights is not None:
        a, b = a * weights.to(a).sqrt(), b * weights.to(a).sqrt()
    else:
        a, b = a.as_subclass(Tensor), b.as_subclass(Tensor).to(a)
    missing = a.isnan().any() or b.isnan().any()
    a_seen, b_seen = (~a.isnan()).to(a), (~b.isnan()).to(a)
    a, b = a.nan_to_num(0.0), b.nan_to_num(0.0)
    if not missing:
        return _sums(a.square().sum(1, keepdim=True), b.square().sum(1), a, b)
    if weights is not None:
        a_seen = a_seen * weights.to(a)
    shared = a_seen @ b_seen.T
    a_squares = a.square() @ b_seen.T
    squares = _sums(a_squares, (a_seen > 0).to(a) @ b.square().T, a, b)
    total = a.shape[1] if weights is None else float(weights.sum())
    return torch.where(shared > 0, squares * (total / shared), torch.inf)


def _sums(a_squares: Tensor, b_squares: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (a_squares + b_squares).addmm_(a, b.T, alpha=-2).clamp_min_(0)


def with_classes(neighbors: Tensor, classes: Tensor) -> Tensor:
    """Neighbours of which those of another class, and others of a row with a class, are random rows of its class.

    classes: of each row a number, -1 where it is not known. A row that is alone in its class keeps its neighbours.
    """
    n_rows, n_neighbors = neighbors.shape
    order = classes.argsort(stable=True)
    ordered = classes[order]
    first, after = torch.searchsorted(ordered, classes), torch.searchsorted(ordered, classes, right=True)
    sizes = after - first
    shift = torch.rand(n_rows, n_neighbors, device=neighbors.device) * (sizes - 1).clamp_min(1)[:, None]
    own = torch.empty_like(order).scatter_(0, order, torch.arange(n_rows, device=order.device))
    # the places of the class but one's own
    place = first[:, None] + (own[:, None] - first[:, None] + 1 + shift.long()) % sizes[:, None]
    of_class = order[place]
    other = (classes[neighbors] != classes[:, None]) & (classes[neighbors] >= 0)
    farthest = torch.arange(n_neighbors, device=neighbors.device) >= n_neighbors - int(CLASS_SHARE * n_neighbors)
    replaced = (other | farthest) & (classes >= 0)[:, None] & (sizes > 1)[:, None]
    return torch.where(replaced, of_class, neighbors)


def _by_index(x: Tensor | SparseRows, n_neighbors: int) -> Tensor:
    """Neighbours by nearest neighbour descent, nearly all of the true ones."""
    try:
        from pynndescent import NNDescent
    except ImportError as error:
        raise ImportError(
            f"The neighbours of more than {MOST_EXACT} rows need the package pynndescent: pip install pynndescent."
        ) from error
    rows = x.scaled if isinstance(x, SparseRows) else x.as_subclass(Tensor).numpy(force=True)
    index = NNDescent(rows, n_neighbors=n_neighbors + 1, random_state=0)
    found = torch.from_numpy(index.neighbor_graph[0]).long()
    is_own = found == torch.arange(len(x))[:, None]
    is_own[~is_own.any(1), -1] = True  # of a row that was not found itself, the farthest is left out
    return found[~is_own].reshape(len(x), n_neighbors).to(x.device)
