from benchmark_utils.method import Method
from sklearn.manifold import SpectralEmbedding


class Solver(Method):
    """Laplacian eigenmaps (Belkin and Niyogi 2003). Places the rows of the fit alone."""

    name = "Laplacian eigenmaps"
    parameters = {"n_neighbors": [10]}

    def estimator(self, n_components, random_state, X):
        return SpectralEmbedding(
            n_components, affinity="nearest_neighbors", n_neighbors=self.n_neighbors, random_state=random_state
        )
