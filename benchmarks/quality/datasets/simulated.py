import numpy as np
from benchmark_utils.data import offer
from benchopt import BaseDataset
from sklearn.datasets import make_s_curve, make_swiss_roll


def swiss_roll(n, rng):
    """A rolled sheet in 3 dimensions, noise 0.1; the target is the position along the roll."""
    X, y = make_swiss_roll(n, noise=0.1, random_state=rng)
    return dict(X=X, y=y, target="number")


def s_curve(n, rng):
    """A bent sheet in 3 dimensions, noise 0.05; the target is the position along the bend."""
    X, y = make_s_curve(n, noise=0.05, random_state=rng)
    return dict(X=X, y=y, target="number")


def nested_spheres(n, rng):
    """Ten spheres of radius 5 within an eleventh of radius 25, in 101 dimensions (Moor and others 2020, section 5.1).

    The centres of the ten are drawn from a normal distribution of variance 10 / sqrt(101); the outer one has as many
    rows as the ten together.
    """
    n_features, small = 101, n // 20
    sizes = [small] * 10 + [n - 10 * small]
    parts = []
    for label, size in enumerate(sizes):
        directions = rng.standard_normal((size, n_features))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        centre = rng.standard_normal(n_features) * np.sqrt(10 / np.sqrt(n_features))
        parts.append(5 * directions + centre if label < 10 else 25 * directions)
    return dict(X=np.concatenate(parts), y=np.repeat(np.arange(11), sizes), target="classes")


def low_rank(n, rng):
    """Normal rows of rank 5 in 30 dimensions, noise 0.1: what is left unexplained by 5 components is noise."""
    Z = rng.standard_normal((n, 5))
    return dict(X=Z @ rng.standard_normal((5, 30)) + 0.1 * rng.standard_normal((n, 30)), y=Z[:, 0], target="number")


SHAPES = {f.__name__: f for f in (swiss_roll, s_curve, nested_spheres, low_rank)}


class Dataset(BaseDataset):
    """Shapes whose truth is known. Drawn once; repetitions hold out other rows of the same draw."""

    name = "simulated"
    parameters = {"shape": list(SHAPES), "n_samples": [2_000]}
    parameter_template = "{shape},{n_samples} rows"
    test_parameters = {"shape": ["swiss_roll"], "n_samples": [100]}

    def get_data(self):
        rng = np.random.RandomState(self.get_seed())
        return offer(SHAPES[self.shape], self.n_samples, rng)
