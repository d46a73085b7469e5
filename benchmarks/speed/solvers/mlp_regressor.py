import warnings
from time import perf_counter

from benchopt import BaseSolver
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor


class Solver(BaseSolver):
    """scikit-learn's MLPRegressor fitted on (X, X): one activation for all layers, the code among them."""

    name = "MLPRegressor"
    requirements = []

    def set_objective(self, X, widths, batch_size, n_epochs):
        self.X, self.n_epochs = X, n_epochs
        hidden = (*widths[1:], *widths[-2:0:-1])
        self.model = MLPRegressor(
            hidden_layer_sizes=hidden, batch_size=batch_size, max_iter=n_epochs, tol=0, random_state=0
        )

    def run(self, _):
        start = perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is fixed
            self.model.fit(self.X, self.X)
        self.seconds = perf_counter() - start

    def get_result(self):
        return dict(seconds=self.seconds, rows=len(self.X) * self.n_epochs)
