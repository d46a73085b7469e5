"""The modules: initialized at principal axes they are PCA, gradients reach every parameter, axes are exact."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from skae import _axes as axes_of
from skae import _networks as networks
from skae._layers import ACTIVATIONS
from skae._losses import squared_error, standard_normal_kl


@pytest.fixture
def x():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(60, 5, generator=generator) @ torch.randn(5, 5, generator=generator) + 3


def arrays(axes):
    return axes_of.PrincipalAxes(*(t.numpy() for t in axes[:3]), axes.total, axes.n_all)


@pytest.mark.parametrize("shape", [(60, 5), (5, 60), (40, 40)])
def test_principal_axes_are_those_of_pca(shape):
    X = np.random.RandomState(0).standard_normal(shape) * np.linspace(1, 3, shape[1]) + 1
    pca = PCA(3, svd_solver="full").fit(X)
    found = arrays(axes_of.principal_axes(torch.tensor(X), 3))
    np.testing.assert_allclose(found.variances[:3], pca.explained_variance_)
    np.testing.assert_allclose(np.abs(found.axes[:3] @ pca.components_.T), np.eye(3), atol=1e-7)
    np.testing.assert_allclose(found.total, X.var(axis=0, ddof=1).sum())
    np.testing.assert_allclose(found.mean, X.mean(axis=0))


def test_principal_axes_of_large_data_are_close(monkeypatch):
    X = np.random.RandomState(0).standard_normal((300, 40)) * np.geomspace(10, 0.1, 40)
    exact = arrays(axes_of.principal_axes(torch.tensor(X), 4))
    monkeypatch.setattr(axes_of, "EXACT_SIZE", 20)
    found = arrays(axes_of.principal_axes(torch.tensor(X), 4))
    np.testing.assert_allclose(found.variances[:4], exact.variances[:4], rtol=1e-6)
    np.testing.assert_allclose(np.abs(found.axes[:4] @ exact.axes[:4].T), np.eye(4), atol=1e-5)
    np.testing.assert_allclose(found.total, exact.total)


def test_principal_axes_leave_out_what_has_no_variance():
    X = torch.ones(10, 4)
    X[:, 0] = torch.arange(10)
    found = axes_of.principal_axes(X, 4)
    assert found.axes.shape == (1, 4)
    first = found.first(3)
    assert first.axes.shape == (3, 4)
    assert first.variances[1:].tolist() == [0, 0]


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("hidden", [(), (7,), (8, 6)])
def test_initialized_at_principal_axes_it_is_pca(x, hidden, probabilities):
    if probabilities:
        x = torch.sigmoid(x)
    module = networks.AutoEncoderModule(5, 2, hidden, "silu", probabilities)
    axes = axes_of.principal_axes(x, 2)
    module.initialize(x, torch.arange(60), axes.first(2))
    pca = PCA(2).fit(x.numpy())
    expected = pca.inverse_transform(pca.transform(x.numpy()))
    if probabilities:
        expected = expected.clip(0.01, 0.99)
    with torch.no_grad():
        np.testing.assert_allclose(module.decode(module.encode(x)), expected, atol=2e-5)
        np.testing.assert_allclose(module.encode(x).var(0), [1, 1], rtol=1e-4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("from_pca", [False, True])
@pytest.mark.parametrize("variational", [False, True])
def test_gradient_reaches_every_parameter(x, activation, from_pca, variational):
    torch.manual_seed(0)
    kind = networks.VariationalModule if variational else networks.AutoEncoderModule
    module = kind(5, 2, (7, 4), activation)
    if from_pca:
        axes = axes_of.principal_axes(x, 2)
        module.initialize(x, torch.arange(60), axes.first(2))
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    for _ in range(2):  # hidden layers get theirs once the output layers have left zero
        optimizer.zero_grad()
        loss = squared_error(x, module.decode(module.encode(x)))
        if variational:
            loss = loss / module.log_noise.exp() + standard_normal_kl(*module.posterior(x))
        loss.mean().backward()
        optimizer.step()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_decoder_mirrors_encoder():
    module = networks.AutoEncoderModule(9, 2, (8, 4), "relu")
    widths = [layer.in_features for layer in module.encoder.perceptron if hasattr(layer, "in_features")]
    mirrored = [layer.out_features for layer in module.decoder.perceptron if hasattr(layer, "out_features")]
    assert widths == mirrored[::-1] == [9, 8, 4]
