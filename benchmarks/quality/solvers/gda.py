from benchmark_utils.method import Method
from sklearn.decomposition import KernelPCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline


class Solver(Method):
    """Generalized discriminant analysis (Baudat and Anouar 2000): linear discriminants in the space of a kernel.

    Computed as Kernel PCA, then LDA, which it equals (Yang, Jin, Yang, Zhang and Frangi 2004, "Essence of kernel
    Fisher discriminant: KPCA plus LDA", Pattern Recognition 37). Only the leading axes are kept, which
    regularizes it: with all of them every class is a point.
    """

    name = "GDA"
    parameters = {"n_axes": [100], "width": [1.0]}
    uses_y = True

    def estimator(self, n_components, random_state, X):
        gamma = self.width / X.var(axis=0).sum()
        n_axes = min(self.n_axes, len(X) // 2)
        return make_pipeline(
            KernelPCA(n_axes, kernel="rbf", gamma=gamma, eigen_solver="dense"),
            LinearDiscriminantAnalysis(n_components=n_components),
        )
