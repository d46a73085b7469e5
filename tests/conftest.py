import os

# Read when the libraries are imported. Numba cannot change its number later; workers share the processors.
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from sklearn.datasets import load_digits

matplotlib.use("Agg")

collect_ignore = ["typed.py"]  # for mypy


@pytest.fixture(scope="session")
def digits():
    """Scikit-learn's digits in [0, 1]: 1797 x 64, float64."""
    return load_digits().data / 16


@pytest.fixture
def table():
    """A small table with a curved structure: 200 x 6, float64."""
    rng = np.random.RandomState(0)
    t = rng.uniform(-2, 2, (200, 2))
    X = np.column_stack([t, t**2, t.prod(axis=1), np.sin(2 * t[:, 0])])
    return X + 0.05 * rng.standard_normal(X.shape)


@pytest.fixture(scope="session")
def real_data():
    """Loads a development data set; skips, saying so, unless SKAE_DATA names the folder that has it."""

    def load(name):
        folder = os.environ.get("SKAE_DATA")
        if folder is None:
            pytest.skip("needs a folder of development data sets, named by the environment variable SKAE_DATA")
        path = Path(folder) / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"needs the development data set {name} in {folder}, the folder SKAE_DATA")
        with np.load(path) as archive:
            return archive["X"].astype(np.float64)

    return load


@pytest.fixture(scope="session")
def utils():
    """The modules that the files of benchmarks/quality share, as benchopt loads them."""
    from benchopt.benchmark import Benchmark

    Benchmark(Path(__file__).parents[1] / "benchmarks" / "quality")
    from benchmark_utils import answers, data, drawing, guard, metrics, summary

    return dict(answers=answers, data=data, drawing=drawing, guard=guard, metrics=metrics, summary=summary)
