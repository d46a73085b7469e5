from benchmark_utils.method import Method
from sklearn.decomposition import PCA


class Solver(Method):
    """Principal component analysis."""

    name = "PCA"
    parameters = {"whiten": [False]}

    def estimator(self, n_components, random_state, X):
        return PCA(n_components, whiten=self.whiten, random_state=random_state)

    def log_likelihood(self, model, X):
        return model.score(X)
