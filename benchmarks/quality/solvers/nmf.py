from benchmark_utils.method import Method
from sklearn.decomposition import NMF
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler


class Solver(Method):
    """Non-negative matrix factorization of columns brought to [0, 1]."""

    name = "NMF"
    parameters = {"l1_ratio": [0.0], "alpha_W": [0.0]}

    def estimator(self, n_components, random_state, X):
        nmf = NMF(
            n_components,
            init="nndsvda",
            alpha_W=self.alpha_W,
            l1_ratio=self.l1_ratio,
            max_iter=500,
            random_state=random_state,
        )
        return make_pipeline(MinMaxScaler(clip=True), nmf)
