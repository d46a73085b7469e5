from pathlib import Path

import numpy as np
from benchmark_utils.data import fingerprint
from benchmark_utils.method import Method
from benchmark_utils.summary import LEFT_OUT

import skae

MEMBERS = [n for n in skae.__all__ if issubclass(getattr(skae, n), skae.BaseAutoEncoder) and n != "BaseAutoEncoder"]


class Solver(Method):
    """Every transformer of skae, with its defaults: a parameter that is None here is not given."""

    name = "skae"
    parameters = {
        "estimator_name": [name for name in MEMBERS if name not in LEFT_OUT],
        "hidden_layer_sizes": [None],
        "init": [None],
        "max_iter": [None],
        "prior": [None],
    }

    def estimator(self, n_components, random_state, X):
        given = {name: getattr(self, name) for name in self.parameters if name != "estimator_name"}
        given = {name: value for name, value in given.items() if value is not None}
        return getattr(skae, self.estimator_name)(n_components, random_state=random_state, **given)

    def log_likelihood(self, model, X):
        return model.score(X) if hasattr(model, "elbo") else np.nan

    def warm_up_once(self):
        getattr(skae, self.estimator_name)(1, max_iter=1).fit(np.random.RandomState(0).standard_normal((30, 4)))

    def _get_state(self):
        """Fits of another version of skae's sources are no cached ones."""
        return dict(sources=fingerprint(sorted(Path(skae.__file__).parent.glob("*.py"))))

    def __setstate__(self, state):
        """Only there to be hashed."""
