from benchmark_utils.method import Method
from sklearn.decomposition import FactorAnalysis


class Solver(Method):
    """Factor analysis, by expectation maximization."""

    name = "factor analysis"
    parameters = {"rotation": [None]}

    def estimator(self, n_components, random_state, X):
        return FactorAnalysis(n_components, rotation=self.rotation, max_iter=2_000, random_state=random_state)

    def log_likelihood(self, model, X):
        return model.score(X)
