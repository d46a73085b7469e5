from time import perf_counter

from benchopt import BaseSolver
from pyod.models.auto_encoder import AutoEncoder


class Solver(BaseSolver):
    """pyod's AutoEncoder, without batch normalization and dropout; its fit also scores the training rows once."""

    name = "pyod"
    requirements = ["pyod"]

    def set_objective(self, X, widths, batch_size, n_epochs):
        self.X, self.n_epochs = X, n_epochs
        self.model = AutoEncoder(
            preprocessing=False,
            lr=1e-3,
            epoch_num=n_epochs,
            batch_size=batch_size,
            device="cpu",
            verbose=0,
            hidden_neuron_list=list(widths[1:]),
            batch_norm=False,
            dropout_rate=0,
        )

    def run(self, _):
        start = perf_counter()
        self.model.fit(self.X)
        self.seconds = perf_counter() - start

    def get_result(self):
        return dict(seconds=self.seconds, rows=len(self.X) * self.n_epochs)
