from benchmark_utils.method import Method
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler


class Solver(Method):
    """Bernoulli restricted Boltzmann machine, columns brought to [0, 1]; a code: probabilities of the hidden units."""

    name = "RBM"
    parameters = {"learning_rate": [0.05], "n_iter": [30]}

    def estimator(self, n_components, random_state, X):
        rbm = BernoulliRBM(
            n_components, learning_rate=self.learning_rate, n_iter=self.n_iter, random_state=random_state
        )
        return make_pipeline(MinMaxScaler(clip=True), rbm)
