from time import perf_counter

from benchopt import BaseSolver

from skae import AutoEncoder


class Solver(BaseSolver):
    """skae's fit as a user calls it: checks, standardization, epochs, evaluation of the tenth of rows it holds out.

    Its rows are those that train. The linear maps beside the perceptrons are extra work that the others do not have.
    """

    name = "skae"
    requirements = []

    def set_objective(self, X, widths, batch_size, n_epochs):
        self.X, self.n_epochs = X, n_epochs
        self.model = AutoEncoder(
            widths[-1],
            hidden_layer_sizes=widths[1:-1],
            init="random",
            batch_size=batch_size,
            max_iter=n_epochs,
            n_iter_no_change=n_epochs,
            random_state=0,
        )

    def run(self, _):
        start = perf_counter()
        self.model.fit(self.X)
        self.seconds = perf_counter() - start

    def get_result(self):
        return dict(seconds=self.seconds, rows=len(self.X) * 0.9 * self.n_epochs)
