import numpy as np
from benchmark_utils.method import Method
from umap import UMAP


class Solver(Method):
    """UMAP (McInnes and others 2018). Its inverse triangulates the codes, which only a few dimensions allow."""

    name = "UMAP"
    parameters = {"n_neighbors": [15], "min_dist": [0.1]}
    requirements = ["pip::umap-learn"]

    def estimator(self, n_components, random_state, X):
        return UMAP(self.n_neighbors, n_components, min_dist=self.min_dist, random_state=random_state, n_jobs=1)

    def warm_up_once(self):
        rows = np.random.RandomState(0).standard_normal((50, 4))
        model = UMAP(5, random_state=0, n_jobs=1).fit(rows)
        self.inverse_transform(model, model.transform(rows[:5]))

    def inverse_transform(self, model, Z):
        return model.inverse_transform(Z) if model.n_components <= 3 else None
