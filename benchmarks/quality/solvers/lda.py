from benchmark_utils.method import Method
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis


class Solver(Method):
    """Linear discriminant analysis: at most as many components as classes less one."""

    name = "LDA"
    parameters = {"shrinkage": ["auto"]}
    uses_y = True

    def estimator(self, n_components, random_state, X):
        return LinearDiscriminantAnalysis(solver="eigen", shrinkage=self.shrinkage, n_components=n_components)
