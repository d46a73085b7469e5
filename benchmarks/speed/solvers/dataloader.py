from time import perf_counter

import torch
from benchmark_utils import plain_network
from benchopt import BaseSolver
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Solver(BaseSolver):
    """The loop of PyTorch's tutorials: DataLoader, zero_grad, backward, step."""

    name = "DataLoader loop"
    requirements = []

    def set_objective(self, X, widths, batch_size, n_epochs):
        self.X, self.widths, self.batch_size, self.n_epochs = X, widths, batch_size, n_epochs

    def run(self, _):
        start = perf_counter()
        torch.manual_seed(0)
        module = plain_network(self.widths)
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
        loader = DataLoader(TensorDataset(torch.from_numpy(self.X)), batch_size=self.batch_size, shuffle=True)
        for _ in range(self.n_epochs):
            for (x,) in loader:
                optimizer.zero_grad()
                nn.functional.mse_loss(module(x), x).backward()
                optimizer.step()
        self.seconds = perf_counter() - start

    def get_result(self):
        return dict(seconds=self.seconds, rows=len(self.X) * self.n_epochs)
