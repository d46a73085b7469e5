"""Networks of one's own in pickles: built again as they were in fit, then given their arrays."""

import copy
import pickle
import subprocess
import sys
import threading

import joblib
import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from skae import VAE, AutoEncoder, BaseAutoEncoder, parameter
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


class SetsABufferLater(Own):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.register_buffer("factor", None)
        self.register_buffer("expanded", torch.ones(1).expand(n_components), persistent=False)

    def encode(self, x):
        if self.factor is None:
            self.factor = torch.full((1,), 1.5)
        return self.factor * self.expanded * super().encode(x)


class IsParametrized(Own):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        nn.utils.parametrizations.orthogonal(self.second)
        nn.utils.parametrizations.weight_norm(self.first)


KINDS = [
    ReadsAValue,
    HasABufferThatIsNotPersistent,
    HasATensorThatIsNotRegistered,
    IsTied,
    HasBatchNorm,
    SetsABufferLater,
    IsParametrized,
]


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


class RegistersABufferLater(Own):
    def encode(self, x):
        if not hasattr(self, "factor"):
            self.register_buffer("factor", torch.full((1,), 1.5))
        return self.factor * super().encode(x)


def test_a_network_that_cannot_be_built_again_is_an_error_not_another_network(monkeypatch, table):
    monkeypatch.setattr(OwnNetwork, "kind", RegistersABufferLater)
    stored = pickle.dumps(OwnNetwork(3, max_iter=2, random_state=0).fit(table))
    with pytest.raises(RuntimeError, match="differs in factor from the one that was fitted"):
        pickle.loads(stored)


class Grows(Own):
    """A buffer that is not persistent makes each epoch worse than the one before."""

    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.register_buffer("factor", torch.ones(()), persistent=False)

    def decode(self, z):
        if self.training:
            self.factor.mul_(1.05)
        return self.factor * super().decode(z)


def test_all_buffers_are_those_of_the_best_epoch(monkeypatch, table):
    monkeypatch.setattr(OwnNetwork, "kind", Grows)
    model = OwnNetwork(3, max_iter=40, early_stopping=False, random_state=0).fit(table)
    assert model.best_iter_ < model.n_iter_
    assert -model.score_samples(table).mean() / model.scale_**2 == pytest.approx(model.best_loss_, rel=1e-4)


class Width(OwnNetwork):
    """Its width is not declared to define the network, though it does."""

    width: int = parameter(default=5)

    def _build_module(self, n_features, n_components, scale):
        module = Own(n_features, n_components)
        module.first = nn.Sequential(nn.Linear(n_features, self.width), nn.Linear(self.width, n_components))
        return module


def test_the_network_is_built_again_with_all_parameters_of_the_fit(table):
    model = Width(3, max_iter=2, random_state=0).fit(table)
    codes = model.transform(table)
    model.set_params(width=9)
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(twin.transform(table), codes)
        assert twin.width == 9


def test_a_pickle_is_read_in_a_process_that_was_forked_within_an_epoch():
    code = """
import os, pickle, signal, threading
import numpy as np, torch
from skae import AutoEncoder
torch.set_num_threads(1)
X = np.random.RandomState(0).standard_normal((200, 5))
stored, within = pickle.dumps(AutoEncoder(max_iter=1).fit(X)), threading.Event()
class Waits(AutoEncoder):
    def _loss(self, module, x):
        within.set()
        threading.Event().wait()
threading.Thread(target=Waits().fit, args=(X,), daemon=True).start()
within.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)  # ends a child that waits for the lock
    pickle.loads(stored)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


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


@pytest.mark.parametrize("member", [AutoEncoder, VAE])
def test_a_model_mapped_from_a_file_is_used_without_a_warning(member, table, tmp_path):
    model = member(max_iter=2, random_state=0).partial_fit(table)
    joblib.dump(model, tmp_path / "model.joblib")
    joblib.dump(table, tmp_path / "X.joblib")
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # otherwise torch warns once in a process
    try:
        mapped = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
        X = joblib.load(tmp_path / "X.joblib", mmap_mode="r")
        np.testing.assert_array_equal(mapped.transform(X), model.transform(table))
        assert mapped.score(X) == model.score(table)
        mapped.inverse_transform(mapped.transform(X))
        mapped.partial_fit(X)
    finally:
        torch.set_warn_always(always)
