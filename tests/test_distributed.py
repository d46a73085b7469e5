"""Several processes that fit together: this file is run by two of them, which leave what they found for the tests."""

import copy
import datetime
import inspect
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
import uuid
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.decomposition import PCA
from torch import distributed

import skae
from skae import (
    TDVAE,
    VAE,
    VQVAE,
    AutoEncoder,
    BatchedGridSearchCV,
    Checkpoint,
    ConditionalVAE,
    NeighborAutoEncoder,
    _mapped,
    _ordering,
    _training,
    windows,
)

QUICK = dict(max_iter=2, random_state=0)
MEMBERS = [
    each
    for each in (getattr(skae, name) for name in skae.__all__)
    if isinstance(each, type) and issubclass(each, skae.BaseAutoEncoder) and not inspect.isabstract(each)
]
MEMBERS.remove(NeighborAutoEncoder)  # it looks for neighbours among all rows
N_ROWS, BATCH, TIMEOUT = 1280, 128, 60
FAILED = "The fit of process 1 of the group failed before training: see its error."


def rows():
    rng = np.random.RandomState(0)
    curved = np.tanh(rng.standard_normal((N_ROWS, 3))) @ rng.standard_normal((3, 12))
    return (curved + 0.1 * rng.standard_normal((N_ROWS, 12))) * [*range(1, 13)] + 5


def uneven(X, rank):
    """1260 rows, and 20: fewer than there are steps."""
    return X[:1260] if rank == 0 else X[1260:]


def interleaved(X, rank):
    """Of every batch one half."""
    return X.reshape(-1, 2, BATCH // 2, X.shape[1])[:, rank].reshape(-1, X.shape[1])


def learned(model):
    """What has to be the same in all processes."""
    names = "mean_ scale_ n_samples_ n_iter_ best_iter_ best_loss_ loss_curve_ validation_curve_ n_components_ n_codes_"
    names += " active_units_ code_frequencies_ explained_variance_ explained_variance_ratio_"
    found = {name: getattr(model, name) for name in names.split() if hasattr(model, name)}
    return found | {name: value.numpy() for name, value in model.module_.state_dict().items()}


# What the two processes do: functions of their number that return what is to be looked at.


def full_batches(rank=None):
    """50 steps over 128 rows."""
    X = rows()[:BATCH]
    model = AutoEncoder(3, init="random", early_stopping=False, max_iter=50, batch_size=BATCH, random_state=0)
    return learned(model.fit(X if rank is None else X[BATCH // 2 * rank :][: BATCH // 2]))


def batches_in_order(rank=None):
    """5 epochs of 10 steps over the same batches, and rows that validate."""
    X, before = rows(), (_training.random_order, _ordering.MOST_ROWS)
    X_val = X[::7] + 0.1
    _training.random_order, _ordering.MOST_ROWS = lambda rows, weights=None: rows.sort().values, N_ROWS
    try:
        model = AutoEncoder(3, init="random", max_iter=5, batch_size=BATCH, alpha=0.01, random_state=0)
        if rank is not None:
            X, X_val = interleaved(X, rank), (X_val[:50] if rank == 0 else X_val[50:])
        return learned(model.fit(X, X_val=X_val))
    finally:
        _training.random_order, _ordering.MOST_ROWS = before


def linear(rank=None):
    X = rows()
    model = AutoEncoder(3, hidden_layer_sizes=(), max_iter=3, random_state=0)
    return learned(model) | {"Z": model.transform(X)} if model.fit(X if rank is None else uneven(X, rank)) else None


def state_space(rank=None):
    X = rows()
    model = TDVAE(2, n_channels=3, hidden_layer_sizes=(), early_stopping=False, learning_rate_init=1e-12, **QUICK)
    return learned(model.fit(X if rank is None else uneven(X, rank)))


def every_member(rank):
    return {member.__name__: learned(member(3, batch_size=64, **QUICK).fit(uneven(rows(), rank))) for member in MEMBERS}


def vae_and_vqvae(rank):
    X = uneven(rows(), rank)
    vae, vqvae = VAE(3, **QUICK).fit(X), VQVAE(3, n_codes=4, **QUICK).fit(X)
    found = {"VAE": learned(vae), "VQVAE": learned(vqvae), "counts": vqvae._code_counts_.sum()}
    return found | {"labels": [1260, 20] if len(vqvae.labels_) == len(X) else None}


def other_kinds_of_rows(rank):
    X, rng = uneven(rows(), rank), np.random.RandomState(rank)
    weights, found = rng.randint(0, 3, len(X)), {}
    found["weights"] = AutoEncoder(3, **QUICK).fit(X, sample_weight=weights), weights
    found["vae"] = VAE(3, **QUICK).fit(X, sample_weight=weights), weights
    found["sparse"] = AutoEncoder(3, **QUICK).fit(sparse.csr_array(X)), None
    found["share"] = AutoEncoder(0.9, **QUICK).fit(X), None
    found["no seed"] = AutoEncoder(3, max_iter=2).fit(X), None
    found["again"] = AutoEncoder(3, warm_start=True, **QUICK).fit(X).fit(X), None
    found["bernoulli"] = VAE(3, likelihood="bernoulli", **QUICK).fit(1 / (1 + np.exp(-X / 5))), None
    before, _mapped.LEAST_BYTES = _mapped.LEAST_BYTES, 0
    np.save(f"rows{rank}.npy", X)
    found["map"] = AutoEncoder(3, **QUICK).fit(np.load(f"rows{rank}.npy", mmap_mode="r")), None
    _mapped.LEAST_BYTES = before
    return {name: (learned(model), weights) for name, (model, weights) in found.items()}


def callbacks(rank):
    monitor = Recorder()
    model = AutoEncoder(3, **QUICK).set_callbacks(monitor).fit(uneven(rows(), rank))
    return monitor.n_told, model._skl_callbacks == [monitor]


class Recorder:
    n_told = 0

    def setup(self, estimator, context):
        self.n_told += 1

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        self.n_told += 1

    def on_fit_task_end(self, estimator, context):
        self.n_told += 1


def refused(rank):
    X = uneven(rows(), rank)
    holes, infinite = X.copy(), X.copy()
    holes[0, 0], infinite[0, 0] = np.nan, np.inf if rank else 0.0
    labelled = np.column_stack([X, np.arange(len(X)) % 2])
    Path("notes").write_text("no checkpoint")
    attempts = {
        "partial_fit": lambda: AutoEncoder(3).partial_fit(X),
        "cv": lambda: AutoEncoder(3, cv=2).fit(X),
        "groups": lambda: AutoEncoder(3).fit(X, groups=np.arange(len(X))),
        "holes": lambda: AutoEncoder(3).fit(holes if rank else X),
        "categories": lambda: AutoEncoder(3, categorical_features=[12]).fit(labelled),
        "condition": lambda: ConditionalVAE(3, condition_features=[12]).fit(labelled),
        "neighbors": lambda: NeighborAutoEncoder(2, **QUICK).fit(X),
        "windows": lambda: TDVAE(2, **QUICK).fit(windows(X[:, 0], 4)),
        "search": lambda: BatchedGridSearchCV(AutoEncoder(), {"alpha": [0.1, 1.0]}, cv=2).fit(X),
        "parameter": lambda: AutoEncoder(2 + rank).fit(X),
        "features": lambda: AutoEncoder(2).fit(X[:, rank:]),
        "weights of one": lambda: AutoEncoder(2).fit(X, sample_weight=np.ones(len(X)) if rank else None),
        "one row": lambda: AutoEncoder(2).fit(X[:1] if rank else X),
        "infinite": lambda: AutoEncoder(3).fit(infinite),
        "checkpoint": lambda: AutoEncoder(3).set_callbacks(Checkpoint("file")).fit(X),
        "other file": lambda: AutoEncoder(3, **QUICK).set_callbacks(Checkpoint("notes")).fit(X),
    }
    found = {}
    for name, attempt in attempts.items():
        try:
            attempt()
        except Exception as error:
            found[name] = type(error).__name__, str(error)
    model = AutoEncoder(3, **QUICK).fit(X)
    before = learned(model)
    try:
        model.fit(infinite)
    except Exception:
        found["unchanged"] = same(learned(model), before)
    return found


def same(a, b):
    return pickle.dumps(a) == pickle.dumps(b)


def killed(rank):
    """The second process dies while it trains."""

    class Mortal(AutoEncoder):
        def _loss(self, module, x):
            if self.alive is not None:
                self.alive -= 1
                if self.alive == 0 and rank == 1:
                    os._exit(0)
            return super()._loss(module, x)

    model, X = Mortal(3, **QUICK), uneven(rows(), rank)
    model.alive = None
    before = learned(model.fit(X))
    model.alive, begun = 12, time.perf_counter()
    try:
        model.fit(X)
    except RuntimeError as error:
        return str(error), time.perf_counter() - begun, same(learned(model), before)


QUICKLY = [full_batches, batches_in_order, linear, state_space, vae_and_vqvae, callbacks, refused, killed]
SLOWLY = [every_member, other_kinds_of_rows]


def main(rank, scenarios):
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    store, timeout = Path("store").absolute(), datetime.timedelta(seconds=TIMEOUT)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timeout)
    for name in scenarios:
        Path(f"{name}{rank}.pickle").write_bytes(pickle.dumps(globals()[name](rank)))


def run(folder, scenarios):
    """Two processes; what each scenario gave in either, None where it ended."""
    command, names = [sys.executable, __file__], [scenario.__name__ for scenario in scenarios]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen([*command, str(rank), *names], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=500)[1] for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(errors)
    paths = {name: [folder / f"{name}{rank}.pickle" for rank in range(2)] for name in names}
    return {
        name: [pickle.loads(path.read_bytes()) if path.exists() else None for path in pair]
        for name, pair in paths.items()
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run(tmp_path_factory.mktemp("quick"), QUICKLY)


@pytest.fixture(scope="module")
def found_slowly(tmp_path_factory):
    return run(tmp_path_factory.mktemp("slow"), SLOWLY)


def assert_same(found, expected, tolerance=0.0):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        value = np.asarray(0.0 if value is None else value, dtype=float)
        got = np.asarray(0.0 if found[name] is None else found[name], dtype=float)
        np.testing.assert_allclose(got, value, rtol=0, atol=tolerance * max(1, np.abs(value).max()), err_msg=name)


def test_two_processes_learn_what_one_does_with_all_rows(found):
    for scenario in (full_batches, batches_in_order):
        first, second = found[scenario.__name__]
        assert_same(first, second)
        assert first["n_iter_"] * (1 if scenario is full_batches else 10) == 50
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        assert_same(first, scenario(), 1e-6)
        torch.set_num_threads(threads)


def test_the_fallback_is_pca_of_the_rows_of_all(found):
    first, second = found["linear"]
    assert_same(first, second)
    assert (first["n_samples_"], first["best_iter_"]) == (N_ROWS, 0)
    Z = PCA(3).fit_transform(rows())
    np.testing.assert_allclose(np.abs(first["Z"]), np.abs(Z), atol=1e-4)
    np.testing.assert_allclose(first["explained_variance_"], PCA(3).fit(rows()).explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(first["mean_"], rows().mean(axis=0), rtol=1e-12)
    assert first["scale_"] == pytest.approx(np.sqrt(rows().var(axis=0).mean()), rel=1e-12)


def test_the_linear_state_space_model_is_that_of_the_rows_of_all(found):
    first, second = found["state_space"]
    assert_same(first, second)
    expected = state_space()
    names = ("filter.weight", "transition.weight", "smoothing.weight", "noise", "code")
    assert_same({name: first[name] for name in names}, {name: expected[name] for name in names}, 1e-4)


def test_vae_and_vqvae_know_the_rows_of_all(found):
    for name, (first, second) in {n: [f[n] for f in found["vae_and_vqvae"]] for n in ("VAE", "VQVAE")}.items():
        assert_same(first, second)
        assert first["n_samples_"] == N_ROWS, name
    assert found["vae_and_vqvae"][0]["labels"] == [1260, 20]
    assert found["vae_and_vqvae"][1]["counts"] == N_ROWS


def test_the_first_process_alone_tells_callbacks(found):
    (first, kept), (second, kept_too) = found["callbacks"]
    assert first >= 6
    assert second == 0
    assert kept
    assert kept_too


MESSAGES = {
    "partial_fit": "partial_fit is not possible",
    "cv": "cv is not possible",
    "groups": "groups is not possible",
    "holes": "missing cells is not possible",
    "categories": "categories, or with a condition is not possible",
    "condition": "categories, or with a condition is not possible",
    "neighbors": "To look for neighbours among all rows is not possible",
    "windows": "windows that overlap, without X_val, is not possible",
    "search": "A search or a fit with cv is not possible",
    "parameter": "n_components differs: 2 in process 0 and 3 in process 1",
    "features": "the number of features differs: 12 in process 0 and 11 in process 1",
    "weights of one": "whether there is a sample_weight differs",
    "one row": "fewer than two rows",
    "infinite": "infinity",
    "checkpoint": "Checkpoint needs an int as random_state",
    "other file": "notes is no checkpoint of this fit",
}
# What is an error in the first process: it alone has the file.
OF_THE_FIRST = ("checkpoint", "other file")


def test_what_cannot_be_computed_from_all_is_an_error_in_all(found):
    first, second = found["refused"]
    assert first.keys() == second.keys() == {*MESSAGES, "unchanged"}
    assert first["unchanged"]
    assert second["unchanged"]
    for name, message in MESSAGES.items():
        assert message in (first if name in OF_THE_FIRST else second)[name][1], name
        if name in OF_THE_FIRST:
            assert second[name] == ("RuntimeError", FAILED.replace("1", "0"))
        elif name in ("holes", "one row", "infinite"):
            assert first[name] == ("RuntimeError", FAILED), first[name]
        else:
            assert first[name] == second[name]


def test_a_process_that_ends_is_an_error_in_the_others(found):
    (message, seconds, unchanged), ended = found["killed"]
    assert ended is None
    assert "Another process of the torch.distributed group has ended" in message
    assert seconds < TIMEOUT
    assert unchanged


class Killed(AutoEncoder):
    """Its process is killed at the n-th batch, in the middle of an epoch."""

    n_batches, kill_at = 0, None

    def _loss(self, module, x):
        self.n_batches += module.training
        if self.n_batches == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._loss(module, x)


def forked(folder, works, kill=None):
    """Processes of a group that do a work each; how they ended, and what they found: None if killed.

    kill: a file, which process to kill once that is written anew, and after how many seconds more.
    """
    store, pids = f"file://{folder / uuid.uuid4().hex}", []
    for rank, work in enumerate(works):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork where there are threads
            pids.append(os.fork())
        if pids[-1] == 0:
            try:
                torch.set_num_threads(1)
                options = dict(rank=rank, world_size=len(works), timeout=datetime.timedelta(seconds=TIMEOUT))
                distributed.init_process_group("gloo", init_method=store, **options)
                (folder / f"found{rank}").write_bytes(pickle.dumps(work(rank)))
                os._exit(0)
            finally:
                traceback.print_exc()
                os._exit(1)
    if kill is not None:
        path, rank, delay = kill
        before = path.stat().st_mtime_ns if path.exists() else None
        while not path.exists() or path.stat().st_mtime_ns == before:
            time.sleep(0.001)
        time.sleep(delay)
        os.kill(pids[rank], signal.SIGKILL)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    paths = [folder / f"found{rank}" for rank in range(len(works))]
    found = [pickle.loads(path.read_bytes()) if path.exists() else None for path in paths]
    for path in paths:
        path.unlink(missing_ok=True)
    return statuses, found


def fit_of_two(path=None, kill_at=None, member=Killed, reverses=None, **options):
    """A work for a process of `forked`: what it has learned, in how many batches; the error, if there is one.

    reverses: the process whose rows are in reverse order.
    """

    def work(rank):
        model, begun = member(3, batch_size=BATCH, random_state=0, **{"max_iter": 8} | options), time.perf_counter()
        model.kill_at = kill_at
        if path is not None:
            model.set_callbacks(Checkpoint(path, every=0))
        try:
            X = uneven(rows(), rank)[:500]
            model.fit(X[::-1] if rank == reverses else X)
        except Exception as error:
            unfitted = not any(name.endswith("_") for name in vars(model))
            return type(error).__name__, str(error), unfitted and time.perf_counter() - begun < TIMEOUT
        return learned(model), getattr(model, "n_batches", 0)

    return work


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes to kill")


def ended_by_another(found):
    kind, message, in_time = found
    return kind == "RuntimeError" and "Another process of the torch.distributed group has ended" in message and in_time


@needs_fork
@pytest.mark.parametrize(("most", "tolerance"), [(N_ROWS, 1e-5), (170, 0.1)])
def test_components_are_ordered_by_the_rows_of_all(most, tolerance, tmp_path, monkeypatch):
    """However the rows are shared out, and however many of each process are looked at."""
    X = rows() - 5
    X[1100:] *= 4  # and are the larger part of the variance
    model = AutoEncoder(3, init="random", max_iter=3, random_state=0).fit(X)
    x = torch.from_numpy((X - model.mean_) / model.scale_).float()

    def explained(x):
        every = torch.arange(len(x))
        data = _training.Data(x, every, (_training.Fold(every, every),))
        network, (of_each, in_all) = _ordering.ordered(
            copy.deepcopy(model.module_).float(), None, data, model._loss, 0, False
        )
        return of_each, in_all, network.encode(x[:1]).detach().numpy()

    monkeypatch.setattr(_ordering, "MOST_ROWS", most)
    _, found = forked(tmp_path, [lambda _: explained(x[:1100]), lambda _: explained(x[1100:])])
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=0)
    monkeypatch.setattr(_ordering, "MOST_ROWS", N_ROWS)
    of_each, in_all, codes = explained(x)
    np.testing.assert_allclose(found[0][0], of_each, rtol=tolerance)
    assert found[0][1] == pytest.approx(in_all, rel=1e-6)
    np.testing.assert_allclose(found[0][2], codes, atol=tolerance * np.abs(codes).max())


@needs_fork
@pytest.mark.parametrize(("batch_size", "mapped"), [(7, False), (1, False), (7, True)])
def test_batches_that_do_not_divide_the_rows(batch_size, mapped, tmp_path, monkeypatch):
    """Every step has rows, and every row a step."""
    X, sizes = rows()[:60], []
    monkeypatch.setattr(_mapped, "LEAST_BYTES", 0 if mapped else 2**27)
    np.save(tmp_path / "X.npy", X)

    class Counted(AutoEncoder):
        def _loss(self, module, x):
            if module.training:
                sizes.append(len(x))
            return super()._loss(module, x)

    def work(rank):
        part = np.load(tmp_path / "X.npy", mmap_mode="r")[30 * rank :][:30] if mapped else X[30 * rank :][:30]
        model = Counted(2, init="random", early_stopping=False, batch_size=batch_size, max_iter=2, random_state=0)
        return learned(model.fit(part)), sizes

    statuses, found = forked(tmp_path, [work, work])
    assert statuses == [0, 0]
    assert_same(found[0][0], found[1][0])
    expected = {(7, False): [4] * 3 + [3] * 6, (1, False): [1] * 30, (7, True): [4] * 7 + [2]}[batch_size, mapped]
    assert all(each == expected * 2 for _, each in found)


@needs_fork
def test_the_fit_of_a_killed_process_goes_on(tmp_path):
    path, whole = tmp_path / "fit.npz", fit_of_two()
    statuses, ((expected, n_batches), (other, _)) = forked(tmp_path, [whole, whole])
    assert statuses == [0, 0]
    assert_same(expected, other)
    for killed in (1, 0):
        works = [fit_of_two(path, kill_at=15 if rank == killed else None) for rank in range(2)]
        statuses, found = forked(tmp_path, works)
        assert (statuses[killed], statuses[1 - killed]) == (-signal.SIGKILL, 0)
        assert ended_by_another(found[1 - killed])
        with np.load(path) as file:
            assert 0 < file["progress/n_done"] < 6
    statuses, found = forked(tmp_path, [fit_of_two(path), fit_of_two(path)])
    assert statuses == [0, 0]
    for again, _ in found:
        assert_same(again, expected)
    assert 0 < found[0][1] < n_batches


@needs_fork
@pytest.mark.slow
@pytest.mark.parametrize("member", [AutoEncoder, VQVAE])
def test_ten_kills_at_random_moments(member, tmp_path):
    options = dict(member=member, max_iter=40)
    whole, path = fit_of_two(**options), tmp_path / "fit.npz"
    (expected, _), _ = forked(tmp_path, [whole, whole])[1]
    work, n_killed = fit_of_two(path, **options), 0
    for place, delay in enumerate(np.random.default_rng(0).uniform(0, 0.2, 10)):
        killed = place % 2
        statuses, found = forked(tmp_path, [work, work], (path, killed, delay))
        n_killed += statuses[killed] == -signal.SIGKILL
        assert statuses[1 - killed] == 0
        assert statuses[killed] == 0 or ended_by_another(found[1 - killed])
    assert n_killed == 10
    statuses, found = forked(tmp_path, [work, work])
    assert statuses == [0, 0]
    for again, _ in found:
        assert_same(again, expected)


@needs_fork
def test_a_checkpoint_is_of_the_same_processes(tmp_path):
    path = tmp_path / "fit.npz"
    work = fit_of_two(path, max_iter=1)
    assert forked(tmp_path, [work, work])[0] == [0, 0]
    before = path.read_bytes()
    for works, message in (
        ([work], "the number of processes that fit together was 2 and is now 1"),
        ([work] * 3, "the number of processes that fit together was 2 and is now 3"),
        ([lambda rank: work(1 - rank)] * 2, "other rows train"),
        ([fit_of_two(path, reverses=1, max_iter=1)] * 2, "the rows of X or their weights differ"),
        ([fit_of_two(path, max_iter=2)] * 2, "max_iter was 1 and is now 2"),
    ):
        statuses, found = forked(tmp_path, works)
        assert not any(statuses)
        assert found[0][0] == "ValueError"
        assert message in found[0][1]
        assert all(other == ("RuntimeError", FAILED.replace("1", "0"), True) for other in found[1:])
    assert path.read_bytes() == before


@pytest.mark.slow
def test_every_member_and_kind_of_rows(found_slowly):
    first, second = found_slowly["every_member"]
    assert first.keys() == second.keys() == {member.__name__ for member in MEMBERS}
    for name in first:
        assert_same(first[name], second[name])
        assert first[name]["n_samples_"] == N_ROWS
    first, second = found_slowly["other_kinds_of_rows"]
    for name in first:
        assert_same(first[name][0], second[name][0])
    weights = np.concatenate([first["weights"][1], second["weights"][1]])
    np.testing.assert_allclose(first["weights"][0]["mean_"], np.average(rows(), axis=0, weights=weights), rtol=1e-12)
    np.testing.assert_allclose(first["sparse"][0]["mean_"], rows().mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(first["map"][0]["mean_"], rows().mean(axis=0), rtol=1e-12)
    share = np.cumsum(PCA().fit(rows()).explained_variance_ratio_)
    assert first["share"][0]["n_components_"] == int(np.searchsorted(share, 0.9, side="right")) + 1


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
