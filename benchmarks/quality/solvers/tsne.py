from benchmark_utils.method import Method

try:  # maps new rows; scikit-learn's does not, and then those cells are empty
    from openTSNE.sklearn import TSNE
except ImportError:
    from sklearn.manifold import TSNE


class Solver(Method):
    """t-SNE (van der Maaten and Hinton 2008), for maps of two components."""

    name = "t-SNE"
    parameters = {"perplexity": [30]}

    def estimator(self, n_components, random_state, X):
        if n_components > 3:
            raise ValueError("t-SNE makes maps: for more than 3 components its fast approximations do not hold")
        return TSNE(n_components, perplexity=min(self.perplexity, (len(X) - 1) / 3), random_state=random_state)
