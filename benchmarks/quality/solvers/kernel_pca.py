from benchmark_utils.method import Method
from sklearn.decomposition import KernelPCA


class Solver(Method):
    """Kernel PCA with the Gaussian kernel, and kernel ridge regression as its inverse.

    `width` multiplies gamma = 1 / (total variance of X): at the mean squared distance the kernel of
    a pair of rows is then exp(-2).
    """

    name = "Kernel PCA"
    parameters = {"width": [1.0], "alpha": [0.1]}

    def estimator(self, n_components, random_state, X):
        gamma = self.width / X.var(axis=0).sum()
        return KernelPCA(
            n_components,
            kernel="rbf",
            gamma=gamma,
            alpha=self.alpha,
            fit_inverse_transform=True,
            random_state=random_state,
        )
