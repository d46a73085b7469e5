"""Training: a quadratic with a known minimum, a hand-computed step, uneven batches, which weights are kept."""

import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

import skae
from skae import _selection as selection
from skae import _training as training
from skae._adam import adam
from skae._initialization import Initialization
from skae._networks import AutoEncoderModule

OPTIONS = dict(patience=1000, tol=0.0)


def schedule(n_epochs=200, learning_rate=0.05, batch_size=8):
    return training.Schedule(n_epochs, learning_rate, lambda n_rows: batch_size, seed=0)


def of(x, rows, validation=None):
    return training.Data(x, rows, (training.Fold(rows, rows if validation is None else validation),))


class Point(nn.Module):
    def __init__(self, start=(0.0, 0.0)):
        super().__init__()
        self.at = nn.Parameter(torch.tensor(start))


def distance(module, x):
    return (x - module.at).square().sum(-1)


def run_of(module, loss=distance):
    return selection.Run([(module, [(loss, adam(module, 0.0))])])


def train(loss, module, x, rows, validation, n_epochs=200, **options):
    """The run after its last epoch, the module at its best weights."""
    return selection.choose([run_of(module, loss)], of(x, rows, validation), schedule(n_epochs), **OPTIONS | options)


@pytest.fixture
def x():
    return torch.randn(60, 2, generator=torch.Generator().manual_seed(0)) + torch.tensor([1.0, -2.0])


def test_finds_the_minimum_of_a_quadratic(x):
    rows = torch.arange(60)
    run = train(distance, Point(), x, rows, rows)
    torch.testing.assert_close(run.network.at.detach(), x.mean(0), atol=1e-2, rtol=0)
    np.testing.assert_allclose(run.best.mean(), run.validation_curve[run.best_epoch], rtol=1e-12)
    assert len(run.validation_curve) == len(run.loss_curve) + 1


def test_first_step_is_adams():
    # Adam's first step is -lr * g / (|g| + eps): the sign of the gradient
    module, x = Point((3.0, -1.0)), torch.zeros(4, 2)
    rows = torch.arange(4)
    loss = training.epoch([(distance, adam(module, 0.0))], module, x, rows, 4, lambda share: 0.25)
    assert loss == 10
    torch.testing.assert_close(module.at.detach(), torch.tensor([2.75, -0.75]))


def test_loss_of_an_epoch_is_the_mean_over_rows_for_uneven_batches(x):
    module = Point()
    loss = training.epoch([(distance, adam(module, 0.0))], module, x, torch.arange(60), 13, lambda share: 0.0)
    assert loss == pytest.approx(distance(module, x).mean().item(), rel=1e-6)


def test_keeps_the_weights_that_are_best_on_validation_rows(x):
    # the validation rows pull elsewhere: the best epoch is on the way, neither the first nor the last
    both = torch.cat([x, torch.tensor([[0.5, -1.0]]).repeat(5, 1)])
    run = train(distance, Point(), both, torch.arange(60), torch.arange(60, 65))
    assert 0 < run.best_epoch < 200
    torch.testing.assert_close(distance(run.network, both[60:]).detach().double(), run.best)
    assert run.best.mean() == min(run.validation_curve)


def test_initial_weights_are_kept_if_training_only_harms(x):
    both = torch.cat([x, torch.zeros(5, 2)])
    run = train(distance, Point(), both, torch.arange(60), torch.arange(60, 65))
    assert run.best_epoch == 0
    assert run.network.at.tolist() == [0, 0]


def test_patience_and_tolerance_end_training(x):
    rows = torch.arange(60)
    run = train(distance, Point(), x, rows, rows, patience=3, tol=1e-3)
    assert 20 < len(run.loss_curve) < 100


def test_divergence_ends_training_and_keeps_the_best(x):
    def bad(module, x):
        return distance(module, x) * torch.where(module.at[0] > 0.3, torch.nan, 1.0)

    rows = torch.arange(60)
    run = train(bad, Point(), x, rows, rows)
    assert run.diverged_in == len(run.loss_curve)
    assert math.isfinite(float(run.best.mean()))
    assert bool(run.network.at.isfinite().all())


def test_the_better_network_is_kept_and_the_hopeless_one_dropped(x):
    rows, calls = torch.arange(60), []
    far, near = Point((50.0, 5.0)), Point((0.8, -1.8))
    runs, options = [run_of(far), run_of(near)], {**OPTIONS, "after_epoch": calls.append}
    run = selection.choose(runs, of(x, rows), schedule(10, 1e-3), **options)
    assert run.network is near
    assert calls.count(near) == 10
    assert calls.count(far) == 2  # a fifth
    torch.testing.assert_close(distance(near, x).detach().double(), run.best)


def test_a_run_is_the_same_alone_and_beside_another(x):
    rows = torch.arange(60)
    alone, together, rival = Point((0.9, -1.7)), Point((0.9, -1.7)), Point((9.0, 9.0))
    expected = train(distance, alone, x, rows, rows, n_epochs=9)
    run = selection.choose([run_of(rival), run_of(together)], of(x, rows), schedule(9), **OPTIONS)
    assert run.network is together
    assert run.validation_curve == expected.validation_curve
    assert torch.equal(alone.at, together.at)


def test_folds_choose_by_the_losses_of_all_rows(x):
    folds = tuple(
        training.Fold(torch.cat([x for j, x in enumerate(parts) if j != i]), parts[i])
        for parts in [torch.arange(60).split(20)]
        for i in range(3)
    )
    data = training.Data(x, torch.arange(60), folds, refit=True)
    starts = ((0.9, -1.9), (9.0, 9.0))
    runs = [selection.Run([run_of(Point(at)).networks[0] for _ in folds], keeps=False) for at in starts]
    best = selection.choose(runs, data, schedule(20), **OPTIONS)
    assert best is runs[0]
    assert best.best.shape == (60,)
    assert best.weights is None
    for (module, _), fold in zip(best.networks, folds, strict=True):  # none has seen its own validation rows
        alone = train(distance, Point((0.9, -1.9)), x, fold.training, fold.validation, n_epochs=20)
        last = distance(module, x[fold.validation]).mean().item()
        assert last == pytest.approx(alone.validation_curve[-1], rel=1e-5)


def test_a_refit_follows_the_schedule_on_all_rows(x):
    module, calls = Point((0.9, -1.9)), []
    network, pairs = run_of(module).networks[0]
    assert selection.refit(network, pairs, of(x, torch.arange(60)), schedule(20), 5, calls.append) == 5
    assert len(calls) == 5
    same = run_of(Point((0.9, -1.9)))
    curve = []
    selection.choose(
        [same],
        of(x, torch.arange(60)),
        schedule(20),
        **OPTIONS,
        after_epoch=lambda m: curve.append(m.at.detach().clone()),
    )
    assert torch.equal(module.at, curve[4])


def test_a_refit_that_diverges_keeps_the_last_finite_weights(x):
    def bad(module, x):
        return distance(module, x) * torch.where(module.at[0] > 0.3, torch.nan, 1.0)

    module = Point()
    network, pairs = run_of(module, bad).networks[0]
    assert 0 < selection.refit(network, pairs, of(x, torch.arange(60)), schedule(), 200) < 200
    assert bool(module.at.isfinite().all())


def test_the_fallback_is_left_for_a_clear_gain_only(x):
    rows = torch.arange(60)
    far, near = (run_of(Point(at)) for at in ((30.0, 30.0), (0.9, -1.9)))
    for run in (far, near):
        selection.choose([run], of(x, rows), schedule(2, 1e-3), **OPTIONS)
    assert selection.is_clearly_better(near, far)
    assert not selection.is_clearly_better(far, near)
    initialization = far.at_initialization()
    assert not selection.is_clearly_better(initialization, far)
    assert initialization.best_epoch == 0 < far.best_epoch


def test_a_clear_gain_is_a_paired_test():
    before = torch.linspace(0, 100, 50).double()
    noise = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert selection.select([before, before - 1 + 0.1 * noise], 2.0) == 1
    assert selection.select([before, before + 0.1 * noise], 2.0) == 0
    assert selection.select([before, before], 0.0) == 0
    assert selection.select([before[:9], before[:9] - 1], 2.0) == 0  # too few rows


def test_the_lowest_mean_is_selected_and_the_first_of_equals():
    losses = [torch.tensor(values).double() for values in ([3.0, 1.0], [0.0, 1.5], [1.5, 0.0], [torch.nan, 0.0])]
    assert selection.select(losses) == 1
    assert selection.select(losses[::-1]) == 1  # the infinite and the undefined are never better
    assert selection.select([losses[3], losses[0]]) == 1


def test_evaluation_repeats_its_noise(x):
    def noisy(module, x):
        return distance(module, x + torch.randn_like(x))

    first, second = (training.evaluate(noisy, Point(), x, torch.arange(60)) for _ in range(2))
    assert torch.equal(first, second)


def test_reproducible_gives_everything_back():
    torch.set_default_dtype(torch.float64)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    try:
        with pytest.raises(KeyError), training.reproducible(3, torch.device("cpu"), 1):
            assert torch.get_default_dtype() == torch.float32
            assert torch.get_num_threads() == 1
            first = torch.rand(3)
            raise KeyError
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    with training.reproducible(3, torch.device("cpu")):
        assert torch.equal(torch.rand(3), first)


def test_decay_is_for_matrices_only():
    module = nn.Linear(3, 2)
    groups = adam(module, 0.5).param_groups
    assert [(len(g["params"]), g["params"][0].ndim, g["weight_decay"]) for g in groups] == [(1, 2, 0.5), (1, 1, 0.0)]


def test_linear_maps_do_not_decay():
    module = AutoEncoderModule(3, 2, (4,), "silu")
    decaying, others = adam(module, 0.5).param_groups
    assert [tuple(p.shape) for p in decaying["params"]] == [(4, 3), (2, 4), (4, 2), (3, 4)]
    assert {id(p) for p in others["params"]} >= {id(module.encoder.linear.weight), id(module.decoder.linear.weight)}
    assert len(decaying["params"]) + len(others["params"]) == len(list(module.parameters()))
    linear = AutoEncoderModule(3, 2, (), "silu")
    optimizer = adam(linear, 0.5)
    linear.decode(linear.encode(torch.ones(2, 3))).sum().backward()
    optimizer.step()  # also where nothing decays


def test_a_step_is_that_of_torch():
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 3))
    theirs = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 3))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(50, 3)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": 0.3},
            {"params": [p for p in theirs.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=0.01,
    )

    def loss(module, x):
        return (module(x) - x).square().sum(-1)

    mine = adam(ours, 0.3)
    for _ in range(5):
        training.epoch([(loss, mine)], ours, x, torch.arange(50), 50, lambda share: 0.01)
        optimizer.zero_grad()
        loss(theirs, x).mean().backward()
        optimizer.step()
    for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


class Duel(torch.nn.Module):
    """Two points: one seeks the rows, the other seeks the first; neither has the other's loss."""

    def __init__(self):
        super().__init__()
        self.seeker, self.follower = torch.nn.Linear(1, 2), torch.nn.Linear(1, 2)


def test_alternating_optimizers_step_only_their_own_weights_and_the_last_epoch_is_kept(x):
    def seek(module, x):
        return (x - module.seeker.bias).square().sum(-1)

    def follow(module, x):
        return (module.follower.bias - module.seeker.bias).square().sum().expand(len(x))

    rows, module = torch.arange(60), Duel()
    pairs, calls = [(seek, adam(module.seeker, 0.0)), (follow, adam(module.follower, 0.0))], []
    run = selection.choose(
        [selection.Run([(module, pairs)])],
        of(x, rows),
        schedule(60, 0.1, 20),
        patience=1,
        tol=0.5,
        after_epoch=calls.append,
    )
    assert len(calls) == 60
    assert run.best_epoch == 60 == len(run.loss_curve)
    assert len(run.validation_curve) == 61
    torch.testing.assert_close(module.seeker.bias.detach(), x.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(module.follower.bias.detach(), x.mean(0), atol=0.1, rtol=0)
    assert all(torch.equal(run.weights[name], value) for name, value in module.state_dict().items())


def test_alternating_losses_that_diverge_keep_the_last_finite_weights(x):
    def bad(module, x):
        loss = distance(module, x)
        return loss * (torch.nan if float(module.at.detach()[0]) > 0.5 else 1.0)

    rows, module, other = torch.arange(60), Point((0.0, 0.0)), Point()
    pairs = [(bad, adam(module, 0.0)), (lambda _, x: distance(other, x), adam(other, 0.0))]
    runs = [selection.Run([(module, pairs)])]
    run = selection.choose(runs, of(x + 1, rows), schedule(60, 0.1, 20), patience=1, tol=0.5)
    assert run.diverged_in == len(run.loss_curve)
    assert 0 < run.best_epoch < 60
    assert bool(run.weights["at"].isfinite().all())


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("member", [skae.AutoEncoder, skae.VAE, skae.ContractiveAutoEncoder])
def test_modes_of_the_caller_do_not_reach_a_fit(member, mode, table):
    options = dict(n_components=2, max_iter=2, random_state=0)
    expected = member(**options).fit(table).partial_fit(table)
    with MODES[mode]():
        model = member(**options).fit(table)
        model = pickle.loads(pickle.dumps(model)).partial_fit(table)
        np.testing.assert_array_equal(model.transform(table), expected.transform(table))
        assert torch.is_grad_enabled() == (mode == "autocast")
        assert torch.is_autocast_enabled("cpu") == (mode == "autocast")
    model.partial_fit(table)  # what was made there can be trained here


def test_training_does_not_import_the_compiler_of_torch():
    # it takes longer than a short fit; torch's optimizers import it when the first of them is made
    code = (
        "import sys, numpy as np, skae\n"
        "X = np.random.RandomState(0).standard_normal((50, 3))\n"
        "for name in set(skae.__all__) - {'AutoEncoderImputer', 'BaseAutoEncoder'}:\n"
        "    if 'Search' in name: continue\n"
        "    getattr(skae, name)(max_iter=1, random_state=0).fit(X).partial_fit(X).transform(X)\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_state_of_the_optimizer_is_that_of_torchs():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    x, reference = torch.randn(20, 3), torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.0)
    mine = adam(ours, 0.0)
    for part in range(2):
        for _ in range(3):
            for module, optimizer in ((ours, mine), (theirs, reference)):
                for group in optimizer.param_groups:
                    group["lr"] = 0.01
                optimizer.zero_grad()
                module(x).square().mean().backward()
                optimizer.step()
        if part == 0:  # carried over to another optimizer
            fresh = adam(ours, 0.0)
            fresh.load_state_dict(mine.state_dict())
            mine = fresh
    found, expected = mine.state_dict()["state"], reference.state_dict()["state"]
    assert found.keys() == expected.keys()
    for place in found:
        assert found[place].keys() == expected[place].keys()
        for name in found[place]:
            torch.testing.assert_close(found[place][name], expected[place][name], rtol=1e-5, atol=1e-9)


def test_a_clear_gain_is_one_of_the_mean_or_of_most_rows():
    noise = torch.randn(100, generator=torch.Generator().manual_seed(0)).double()
    first = torch.full((100,), 10.0).double()
    by_mean = (
        first - 0.2 - noise
    )  # a fifth of the deviation: two standard errors, and hardly more than half of the rows
    assert float(((first - by_mean) > 0).double().mean()) < 0.6
    assert selection.select([first, by_mean], n_errors=1.0) == 1
    by_rows = first - 0.1
    by_rows[:2] = torch.tensor([-90.0, 108.0])  # two extreme rows: the mean gain is within one standard error
    gain = first - by_rows
    assert 0 < float(gain.mean()) < float(gain.std()) / 10
    assert selection.select([first, by_rows], n_errors=1.0) == 1
    neither = first - 0.1 * noise
    neither[noise > 0] += 0.05
    assert selection.select([first, neither], n_errors=1.0) == 0


def test_a_network_has_not_seen_its_validation_rows(x):
    rows = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    data = of(x, rows[20:], rows[:20])._replace(rows=rows)

    def build(n_components):
        return AutoEncoderModule(2, n_components, (), "silu")

    initialization = Initialization(build, data, 1, "pca", seed=0)
    for network, seen in ((initialization.network(), x), (initialization.network("pca", rows[20:]), x[rows[20:]])):
        pca = PCA(1).fit(seen.numpy())
        expected = pca.inverse_transform(pca.transform(x.numpy()))
        np.testing.assert_allclose(network.decode(network.encode(x)).detach(), expected, atol=1e-5)
