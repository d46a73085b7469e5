from time import perf_counter

import torch
from benchmark_utils import plain_network
from benchopt import BaseSolver
from skorch import NeuralNetRegressor


class Solver(BaseSolver):
    """skorch's NeuralNetRegressor fitted on (X, X), without its own held-out rows."""

    name = "skorch"
    requirements = ["skorch"]

    def set_objective(self, X, widths, batch_size, n_epochs):
        self.X, self.n_epochs = X, n_epochs
        self.model = NeuralNetRegressor(
            plain_network(widths),
            optimizer=torch.optim.Adam,
            lr=1e-3,
            batch_size=batch_size,
            max_epochs=n_epochs,
            iterator_train__shuffle=True,
            train_split=None,
            verbose=0,
        )

    def run(self, _):
        start = perf_counter()
        self.model.fit(self.X, self.X)
        self.seconds = perf_counter() - start

    def get_result(self):
        return dict(seconds=self.seconds, rows=len(self.X) * self.n_epochs)
