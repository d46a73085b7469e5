"""Recorded epochs: the same as those of the loop, what can be recorded, and that a wrong record is never used."""

import copy
import gc
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.preprocessing import minmax_scale
from torch import nn

import skae
from skae import _graphs as graphs
from skae import _training as training
from skae._adam import adam
from skae._rows import TableRows

# Every variant of every member that has one loss.
CASES = [
    (skae.AutoEncoder, {}),
    (skae.AutoEncoder, dict(loss="binary_cross_entropy")),
    *((skae.DenoisingAutoEncoder, dict(noise=noise)) for noise in ("gaussian", "masking", "salt_and_pepper", "swap")),
    (skae.ContractiveAutoEncoder, dict(hidden_layer_sizes=8)),
    (skae.ContractiveAutoEncoder, {}),
    *((skae.SparseAutoEncoder, dict(penalty=penalty)) for penalty in ("top_k", "l1", "kl")),
    (skae.VAE, {}),
    (skae.VAE, dict(likelihood="bernoulli")),
    (skae.VAE, dict(noise_variance=0.1)),
    (skae.VAE, dict(free_bits=0.1)),
    (skae.VAE, dict(n_draws=3)),
    (skae.VAE, dict(prior="vamp")),
    (skae.VAE, dict(prior="flow")),
    (skae.ConditionalVAE, dict(condition_features=[0])),
    (skae.VQVAE, dict(n_codebooks=2)),
    (skae.TDVAE, {}),
]
every_case = pytest.mark.parametrize(
    ("member", "options"), CASES, ids=lambda value: str(getattr(value, "__name__", value))
)
# Those that take categories: of probabilities of numbers there are none.
OF_TABLES = [case for case in CASES if not {"bernoulli", "binary_cross_entropy"} & set(map(str, case[1].values()))]
OF_TABLES.remove((skae.TDVAE, {}))  # all its columns are numbers
QUICK = dict(n_components=2, hidden_layer_sizes=(8, 4), max_iter=4, batch_size=40, random_state=0)
META = torch.device("meta")


class FirstEpoch(Exception):
    """Carries what the first epoch of a fit is given."""


@pytest.fixture
def first_epoch(monkeypatch):
    """Estimator, X -> network, rows of x as it sees them, and which of them train, in its first epoch."""

    def call(model, X):
        def take(pairs, network, x, rows, *rest):
            raise FirstEpoch(network, x, rows)

        with monkeypatch.context() as patch, pytest.raises(FirstEpoch) as caught:
            patch.setattr(training, "epoch", take)
            model.fit(X)
        return caught.value.args

    return call


@pytest.fixture
def X(table):
    return minmax_scale(table)  # for every likelihood


def quick(member, options):
    return member(**QUICK | options)


# The same epoch.


@every_case
def test_a_static_epoch_is_that_of_the_loop(member, options, X, first_epoch, monkeypatch):
    model = quick(member, options)
    network, x, rows = first_epoch(model, X)
    twin = copy.deepcopy(network)
    pairs = model._optimizers(network)
    (loss, optimizer), *_ = model._optimizers(twin)
    static = graphs.StaticEpoch(loss, optimizer, twin, x, rows, 40)
    monkeypatch.setattr(torch, "randperm", lambda n, device: torch.rand(n, dtype=torch.float64).argsort())
    for seed in range(2):
        rates = torch.linspace(1e-3, 5e-3, len(static.rates)) * (seed + 1)
        with training.reproducible(seed, x.device, 1):
            rate = dict(zip(range(0, len(rows), 40), rates.tolist(), strict=True))
            expected = training.epoch(pairs, network, x, rows, 40, lambda s: rate[round(s * len(rows))])  # noqa: B023
        with training.reproducible(seed, x.device, 1):
            static.rates.copy_(rates)
            static.run()
        assert float(static.total) / len(rows) == expected
        for found, state in zip(twin.state_dict().values(), network.state_dict().values(), strict=True):
            assert torch.equal(found, state)
    assert all(parameter.grad is None for parameter in twin.parameters())


# What can be recorded. Tensors of the device "meta" have no values: whatever asks for one, or copies from the host,
# fails there as it would while a graph is recorded.


@pytest.fixture
def why_not(first_epoch, monkeypatch):
    """Estimator, X -> why its epoch cannot be recorded; None if it can."""

    def call(model, X):
        network, x, rows = first_epoch(model, X)
        twin, there = copy.deepcopy(network).to(META), x.to(META)
        if isinstance(x, TableRows):
            there = TableRows.of(there, None if x.weights is None else x.weights.to(META))
        ((loss, optimizer),) = model._optimizers(twin)
        optimizer.fused, step = True, torch.zeros((), device=META)
        for parameter in twin.parameters():
            moments = (torch.zeros_like(parameter) for _ in range(2))
            optimizer.state[parameter] = dict(zip(("exp_avg", "exp_avg_sq", "step"), (*moments, step), strict=True))
        static = graphs.StaticEpoch(loss, optimizer, twin, there, rows.to(META), 40)
        monkeypatch.setattr(torch, "_fused_adamw_", lambda *args, **options: None)  # has no implementation there
        try:
            with training.reproducible(0, torch.device("cpu")), graphs.OnDevice(META):
                static.run()
        except RuntimeError as error:
            return str(error)

    return call


@every_case
def test_members_can_be_recorded(member, options, X, why_not):
    assert why_not(quick(member, options), X) is None


def test_every_member_is_looked_at():
    public = [getattr(skae, name) for name in skae.__all__]
    members = {one for one in public if issubclass(one, skae.BaseAutoEncoder)} - {skae.BaseAutoEncoder}
    assert members - {member for member, _ in CASES} == {
        skae.AdversarialAutoEncoder,  # two losses
        skae.NeighborAutoEncoder,  # rows with their neighbours are made by the host
    }


@pytest.mark.parametrize(("member", "options"), OF_TABLES)
def test_tables_of_categories_can_be_recorded(member, options, X, why_not):
    frame = pd.DataFrame(X, columns=list("abcdef")).assign(kind=np.where(X[:, 1] > 0.5, "low", "high"))
    reason = why_not(quick(member, options), frame)
    if options.get("noise", "gaussian") == "gaussian":
        assert reason is None
    else:  # the columns of inputs are copied from the host
        assert "another device" in reason


@pytest.mark.parametrize(("member", "options"), dict(OF_TABLES).items())
def test_rows_with_missing_cells_cannot_be_recorded(member, options, X, why_not):
    # the posterior given the observed cells begins with a tensor of the host and checks a Cholesky factor there
    X[::5, 1] = np.nan
    assert "no graph can record it" in why_not(quick(member, options), X)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x.sum().item(), "waits"),
        (lambda x: x if x.sum() > 0 else -x, "waits"),
        (lambda x: x[x > 0], "mask"),
        (lambda x: x.index_put((x > 0,), torch.zeros_like(x[0, 0])), "mask"),
        (lambda x: x.nonzero(), "waits"),
        (lambda x: x.masked_select(x > 0), "waits"),
        (lambda x: torch.unique(x), "waits"),
        (lambda x: torch.randperm(len(x), device=x.device), "waits"),
        (lambda x: torch.linalg.cholesky(x @ x.T), "waits"),
        (lambda x: x + torch.rand(2).to(x.device), "another device"),
        (lambda x: x * torch.tensor(2.0), "another device"),
    ],
)
def test_what_no_graph_can_record_is_an_error(function, reason):
    x = torch.zeros(3, 2, device=META)
    with pytest.raises(RuntimeError, match=f"{reason}.*no graph can record it"), graphs.OnDevice(META):
        function(x)


def test_what_a_graph_can_record_is_left_alone():
    x = torch.randn(4, 3)
    with graphs.OnDevice(x.device):
        found = x[torch.arange(2)].where(x[:2] > 0, 0).sum() + x.masked_fill(x < 0, 1.0).mean()
    assert found == x[:2].clamp_min(0).sum() + x.masked_fill(x < 0, 1.0).mean()


# No wrong record is used. A processor takes the part of the accelerator, and a function that of what captures.


def test_fits_on_a_processor_record_nothing(X, monkeypatch):
    monkeypatch.setattr(training, "replayed", None)
    skae.AutoEncoder(**QUICK).fit(X)


@pytest.fixture
def fit(X, monkeypatch):
    """Fits with graphs, given what captures; the model and how often it was called."""

    def call(capture, member=skae.AutoEncoder, X=X, **options):
        calls = []

        def counted(run):
            calls.append(run)
            return capture(run)

        with monkeypatch.context() as patch:
            patch.setattr(training, "DEVICES", {"cpu"})
            patch.setattr(graphs, "captured", counted)
            model = member(**QUICK | dict(max_iter=20) | options).fit(X)
        return model, len(calls)

    return call


def ordinary(X, member=skae.AutoEncoder, **options):
    return member(**QUICK | dict(max_iter=20) | options).fit(X)


def test_a_right_record_makes_the_epochs(fit, X):
    runs = []

    def right(run):
        return lambda: runs.append(run()) or runs[-1]

    before = torch.get_rng_state()
    model, n_captures = fit(right)
    assert torch.equal(torch.get_rng_state(), before)
    assert n_captures == 3  # two initializations and the refit
    assert len(runs) > 30
    loop = ordinary(X)
    assert model.loss_curve_[0] == loop.loss_curve_[0]
    assert model.loss_curve_[1] != loop.loss_curve_[1]  # another order of the rows
    assert model.score(X) == pytest.approx(loop.score(X), abs=0.05)
    np.testing.assert_array_equal(fit(right)[0].transform(X), model.transform(X))


def fails(run):
    raise RuntimeError("operation not permitted when stream is capturing")


def fails_halfway(run):
    run()
    raise RuntimeError("operation not permitted when stream is capturing")


def does_nothing(run):
    return lambda: None


def replay_fails(run):
    def replay():
        run()
        raise RuntimeError("a launch failed")

    return replay


def runs_twice(run):
    def replay():
        run()
        run()

    return replay


def has_its_draws(run):
    seed = torch.initial_seed()

    def replay():
        torch.manual_seed(seed)
        run()

    return replay


def has_its_rates(run):
    rates = run.__self__.rates
    constant = rates.clone()

    def replay():
        rates.copy_(constant)
        run()

    return replay


@pytest.mark.parametrize(
    "wrong", [fails, fails_halfway, does_nothing, replay_fails, runs_twice, has_its_draws, has_its_rates]
)
def test_a_wrong_record_is_not_used(wrong, fit, X):
    options = dict(member=skae.VAE, init="random", max_iter=5)
    model, n_captures = fit(wrong, **options)
    expected = ordinary(X, **options)
    np.testing.assert_array_equal(model.transform(X), expected.transform(X))
    assert model.loss_curve_ == expected.loss_curve_
    assert n_captures
    assert model.best_iter_ > 1


def test_a_loss_that_waits_is_left_to_the_loop(fit, X):
    # a processor checks the codes that it makes one-hot, which an accelerator does not
    options = dict(member=skae.VQVAE, max_iter=5)
    model, n_captures = fit(fails, **options)
    np.testing.assert_array_equal(model.transform(X), ordinary(X, **options).transform(X))
    assert n_captures == 0


class Replacing(nn.Module):
    """A module that replaces a buffer instead of writing to it."""

    def __init__(self):
        super().__init__()
        self.at = nn.Parameter(torch.zeros(2))
        self.register_buffer("seen", torch.zeros(()))


def test_a_network_that_replaces_a_buffer_is_left_to_the_loop(monkeypatch):
    def loss(module, x):
        module.seen = module.seen + 1
        return (x - module.at).square().sum(-1) + 0 * module.seen

    module, x, rows = Replacing(), torch.randn(60, 2), torch.arange(60)
    pairs = [(loss, adam(module, 0.0))]
    training.epoch(pairs, module, x, rows, 20, lambda share: 0.01)
    monkeypatch.setattr(graphs, "captured", lambda run: run)
    assert graphs.replayed(pairs, module, x, rows, 20, [0.01] * 3, seed=0) is None
    assert pairs[0][1].recorded is False
    assert module.seen == 3
    assert graphs.replayed(pairs, module, x, rows, 20, [0.01] * 3, seed=1) is None


def test_what_is_left_to_the_loop(monkeypatch, X, fit):
    def never(run):
        raise AssertionError

    assert fit(never, member=skae.AdversarialAutoEncoder)[1] == 0
    weighted = np.vstack([X, X[:20]])  # rows that repeat have weights
    assert fit(never, X=weighted)[1] == 0
    assert fit(never, X=sparse.csr_array(X))[1] == 0
    assert fit(never, max_iter=1)[1] == 0
    monkeypatch.setattr(graphs, "MOST_STEPS", 1)
    assert fit(never)[1] == 0


class TorchsAdam(skae.AutoEncoder):
    def _optimizers(self, module):
        return [(self._loss, torch.optim.Adam(module.parameters(), lr=1e-3))]


def test_other_optimizers_are_left_to_the_loop(fit, X):
    model, n_captures = fit(fails, member=TorchsAdam, max_iter=3)
    assert n_captures == 0
    np.testing.assert_array_equal(model.transform(X), ordinary(X, member=TorchsAdam, max_iter=3).transform(X))


class Launch:
    """Stands for a graph, which holds no part of the network."""

    def __init__(self, run):
        self.epoch = weakref.ref(run.__self__)

    def __call__(self):
        self.epoch().run()


def test_a_record_goes_with_the_fit(fit):
    epochs, launches = [], []

    def capture(run):
        launch = Launch(run)
        epochs.append(run.__self__)
        launches.append(weakref.ref(launch))
        return launch

    gc.disable()  # or the memory of the device would be free only some time later
    try:
        assert fit(capture)[0].best_iter_ > 1
        epochs.clear()
        assert len(launches) == 3
        assert not any(launch() for launch in launches)
    finally:
        gc.enable()


# Memory.


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_out_of_memory_is_one_line_and_leaves_the_estimator_as_it_was(method, X, monkeypatch):
    def loss(*arguments):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")

    model = skae.AutoEncoder(**QUICK).fit(X)
    before, codes = dict(vars(model)), model.transform(X)
    with monkeypatch.context() as patch:
        patch.setattr(skae.AutoEncoder, "_loss", loss)
        with pytest.raises(torch.cuda.OutOfMemoryError, match=r"Lower batch_size.*device='cpu'. \(CUDA out") as caught:
            getattr(model, method)(X)
        new = skae.AutoEncoder(**QUICK)
        with pytest.raises(torch.cuda.OutOfMemoryError):
            getattr(new, method)(X)
    assert "\n" not in str(caught.value)
    assert vars(model) == before
    np.testing.assert_array_equal(model.transform(X), codes)
    assert not [name for name in vars(new) if name.endswith("_")]


# On an accelerator.

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.fixture
def verified(monkeypatch):
    """What came of each capture, in turn."""
    results, verify = [], graphs._verified

    def noted(*arguments):
        results.append(bool(verdict := verify(*arguments)))
        return verdict

    monkeypatch.setattr(graphs, "_verified", noted)
    return results


@pytest.mark.gpu
@needs_cuda
@every_case
def test_members_are_recorded_and_reproducible(member, options, X, verified):
    model, again = (quick(member, options).set_params(device="cuda", max_iter=20).fit(X) for _ in range(2))
    assert verified
    assert all(verified)
    np.testing.assert_allclose(again.transform(X), model.transform(X), rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@needs_cuda
def test_graphs_reach_the_quality_of_the_loop(X, verified, monkeypatch):
    options = QUICK | dict(device="cuda", max_iter=60)
    state = torch.cuda.get_rng_state()
    recorded = skae.AutoEncoder(**options).fit(X)
    assert verified
    assert all(verified)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    monkeypatch.setattr(training, "DEVICES", set())
    loop = skae.AutoEncoder(**options).fit(X)
    assert recorded.score(X) == pytest.approx(loop.score(X), abs=0.03)


@pytest.mark.gpu
@needs_cuda
def test_a_capture_that_fails_leaves_the_device_usable(X, verified, monkeypatch):
    capture = graphs.captured

    def broken(run):
        return capture(lambda: (run(), torch.cuda.synchronize()))

    monkeypatch.setattr(graphs, "captured", broken)
    model = skae.AutoEncoder(device="cuda", **QUICK).fit(X)
    assert verified
    assert not any(verified)
    monkeypatch.setattr(training, "DEVICES", set())
    expected = skae.AutoEncoder(device="cuda", **QUICK).fit(X)
    np.testing.assert_allclose(model.transform(X), expected.transform(X), rtol=1e-4, atol=1e-5)
