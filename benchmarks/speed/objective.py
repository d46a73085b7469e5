from benchopt import BaseObjective


class Objective(BaseObjective):
    """Rows per second at which the same network is trained: same widths, batch, epochs, Adam, float32."""

    name = "Training speed"
    min_benchopt_version = "1.10"
    sampling_strategy = "run_once"
    test_config = {"dataset": {"network": "small", "n_samples": 500, "n_epochs": 1}}

    def set_data(self, X, widths, batch_size, n_epochs):
        self.X, self.widths, self.batch_size, self.n_epochs = X, widths, batch_size, n_epochs

    def get_objective(self):
        return dict(X=self.X, widths=self.widths, batch_size=self.batch_size, n_epochs=self.n_epochs)

    def evaluate_result(self, seconds, rows):
        return dict(value=seconds / rows, rows_per_second=rows / seconds, seconds=seconds)

    def get_one_result(self):
        return dict(seconds=1.0, rows=1)
