"""Never worse than PCA, and better where there is something to find, with default parameters on whole data sets."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from skae import VAE, AutoEncoder, DenoisingAutoEncoder

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("n_components", [2, 5])
@pytest.mark.parametrize("load", [load_digits, load_diabetes, load_breast_cancer], ids=lambda load: load.__name__)
def test_held_out_rows_are_never_worse_off_than_with_pca(load, n_components, seed):
    scaler = MaxAbsScaler() if load is load_digits else StandardScaler()
    train, test = train_test_split(load().data, random_state=seed)
    train, test = scaler.fit_transform(train), scaler.transform(test)
    pca = PCA(n_components, svd_solver="full").fit(train)
    of_pca = r2_score(test, pca.inverse_transform(pca.transform(test)), multioutput="variance_weighted")
    for member in (AutoEncoder, DenoisingAutoEncoder):
        assert member(n_components, random_state=seed).fit(train).score(test) >= of_pca - 0.002
    assert VAE(n_components, random_state=seed).fit(train).score(test) >= pca.score(test) - 0.05


def test_map_of_digits_in_two_dimensions(digits):
    model = AutoEncoder(2, hidden_layer_sizes=(256, 128), max_iter=300, early_stopping=False, random_state=0)
    codes = model.fit_transform(digits)
    error = np.square(digits - model.inverse_transform(codes)).mean()
    assert error <= 0.0155  # PCA with ten components: 0.0192
    assert trustworthiness(digits, codes) >= 0.985
