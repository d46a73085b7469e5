from benchmark_utils.method import Method
from sklearn.manifold import Isomap


class Solver(Method):
    """Isomap (Tenenbaum and others 2000): Kernel PCA of the distances along the graph of neighbours."""

    name = "Isomap"
    parameters = {"n_neighbors": [10]}

    def estimator(self, n_components, random_state, X):
        return Isomap(n_neighbors=self.n_neighbors, n_components=n_components)
