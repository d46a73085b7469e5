"""Networks of one's own in pickles: built again as they were in fit, then given their arrays."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from skae import AutoEncoder, BaseAutoEncoder
from skae._losses import squared_error
from skae._networks import Network


class Own(nn.Module):
    """Two layers; subclasses add what makes a module hard to build again."""

    def __init__(self, n_features, n_components):
        super().__init__()
        self.first, self.second = nn.Linear(n_features, n_components), nn.Linear(n_components, n_features)

    def encode(self, x):
        return self.first(x)

    def decode(self, z):
        return self.second(z)


class ReadsAValue(Own):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.factor = torch.linspace(1, 2, 3).mean().item()

    def encode(self, x):
        return self.factor * super().encode(x)


class HasABufferThatIsNotPersistent(Own):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.register_buffer("factor", torch.ones(n_components), persistent=False)

    def encode(self, x):
        if self.training:
            self.factor.mul_(1.001)
        return self.factor * super().encode(x)


class HasATensorThatIsNotRegistered(Own):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.masks = [torch.rand(n_components) + 0.5]

    def encode(self, x):
        return self.masks[0] * super().encode(x)


class IsTied(Own):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.second = nn.Linear(n_components, n_features)
        self.second.weight = nn.Parameter(self.first.weight.detach().T.contiguous())
        self.third = nn.Linear(n_features, n_components)
        self.third.weight = self.first.weight

    def encode(self, x):
        return (self.first(x) + self.third(x)) / 2


class HasBatchNorm(Own):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.norm = nn.BatchNorm1d(n_features)
        self.register_buffer("none", None)

    def encode(self, x):
        return super().encode(self.norm(x))


KINDS = [ReadsAValue, HasABufferThatIsNotPersistent, HasATensorThatIsNotRegistered, IsTied, HasBatchNorm]


class OwnNetwork(BaseAutoEncoder):
    init = "random"
    kind = Own

    def _loss(self, module, x):
        return squared_error(x, module.decode(module.encode(x)))

    def _build_module(self, n_features, n_components, scale):
        return self.kind(n_features, n_components)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def model(request, monkeypatch, table):
    monkeypatch.setattr(OwnNetwork, "kind", request.param)
    return OwnNetwork(3, max_iter=5, random_state=0).fit(table)


def test_own_networks_survive_pickling_and_copying(model, table):
    codes = model.transform(table)
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):
        np.testing.assert_array_equal(twin.transform(table), codes)
        np.testing.assert_array_equal(twin.inverse_transform(codes), model.inverse_transform(codes))


def test_training_continues_after_pickling_as_without(model, table):
    twin = pickle.loads(pickle.dumps(model)).partial_fit(table)
    np.testing.assert_array_equal(twin.transform(table), model.partial_fit(table).transform(table))


def test_tied_weights_stay_tied(monkeypatch, table):
    monkeypatch.setattr(OwnNetwork, "kind", IsTied)
    twin = pickle.loads(pickle.dumps(OwnNetwork(3, max_iter=2, random_state=0).fit(table)))
    assert twin.module_.first.weight is twin.module_.third.weight


def test_reading_draws_nothing_of_the_callers(model):
    stored, state = pickle.dumps(model), torch.get_rng_state()
    pickle.loads(stored)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_pickle_is_read_while_another_thread_trains(table):
    # an epoch needs the generator of the process for itself, a whole fit does not
    stored = pickle.dumps(AutoEncoder(max_iter=1, random_state=0).fit(table))
    training, read, loaded = threading.Event(), threading.Event(), []

    class UntilRead(AutoEncoder):
        def _loss(self, module, x):
            training.set()
            if read.is_set():
                raise InterruptedError
            return super()._loss(module, x)

    def fit():
        with pytest.raises(InterruptedError):
            UntilRead(max_iter=100_000, n_iter_no_change=100_000, random_state=0).fit(table)
        loaded.append("interrupted")

    thread = threading.Thread(target=fit)
    thread.start()
    training.wait()
    loaded.append(pickle.loads(stored))
    read.set()
    thread.join()
    assert loaded[0].transform(table).shape == (200, 2)
    assert loaded[1] == "interrupted"


class Initialized(Network):
    """A network of one's own that PCA can initialize."""

    def __init__(self, n_features, n_components):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(n_features, n_components), nn.Linear(n_components, n_features)
        self.code_scale = 3.0

    def encode(self, x):
        return self.encoder(x)

    def decode(self, z):
        return self.decoder(z)

    @torch.no_grad()
    def initialize(self, x, rows, axes):
        if axes is not None:
            self.encoder.weight.copy_(axes.axes)
            self.encoder.bias.copy_(-axes.axes @ axes.mean)
            self.decoder.weight.copy_(axes.axes.T)
            self.decoder.bias.copy_(axes.mean)


class FromPCA(OwnNetwork):
    init = "pca"
    kind = Initialized


def test_own_network_has_the_pca_fallback(table):
    model = FromPCA(2, learning_rate_init=1e-12, max_iter=1, random_state=0).fit(table)
    codes = PCA(2).fit_transform(table)
    np.testing.assert_allclose(np.abs(model.transform(table)), 3 * np.abs(codes), atol=1e-4)
    assert model.best_iter_ == 0
    noise = np.random.RandomState(0).standard_normal((60, 8)) * np.geomspace(3, 0.3, 8)
    assert FromPCA(2, random_state=0).fit(noise).best_iter_ == 0


def test_components_by_share_of_variance_need_no_method_of_the_network(table):
    assert OwnNetwork(0.9, max_iter=1, random_state=0).fit(table).n_components_ > 1
