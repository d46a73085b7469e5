from itertools import pairwise
from time import perf_counter

import torch
from benchopt import BaseSolver


class Solver(BaseSolver):
    """The floor: only the matrix products of a step, forward and backward, of the plain network."""

    name = "matrix products"
    requirements = []

    def set_objective(self, X, widths, batch_size, n_epochs):
        self.n_steps = n_epochs * (len(X) // batch_size)
        self.batch_size = batch_size
        shapes = list(pairwise(widths))
        shapes += [(n_out, n_in) for n_in, n_out in shapes[::-1]]
        self.layers = [
            (torch.randn(batch_size, n_in), torch.randn(n_out, n_in), torch.randn(batch_size, n_out))
            for n_in, n_out in shapes
        ]

    def run(self, _):
        start = perf_counter()
        for _ in range(self.n_steps):
            for i, (x, weight, gradient) in enumerate(self.layers):
                x @ weight.T  # forward
                gradient.T @ x  # gradient of the weights
                if i:
                    gradient @ weight  # gradient of the layer's input; that of the data is not needed
        self.seconds = perf_counter() - start

    def get_result(self):
        return dict(seconds=self.seconds, rows=self.n_steps * self.batch_size)
