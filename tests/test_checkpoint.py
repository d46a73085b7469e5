"""Checkpoints: a fit that is stopped goes on from its file, and ends as if it had not been stopped."""

import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skae
from skae import VAE, VQVAE, AutoEncoder, Checkpoint
from skae import _checkpoint as of_files
from skae import _mapped as mapped_rows

MEMBERS = [getattr(skae, name) for name in skae.__all__ if issubclass(getattr(skae, name), skae.BaseAutoEncoder)]
MEMBERS.remove(skae.BaseAutoEncoder)
QUICK = dict(max_iter=4, hidden_layer_sizes=(16,), random_state=0)


class Interrupt:
    """A callback that presses Ctrl-C after some epochs."""

    def __init__(self, epochs):
        self.epochs = epochs

    def setup(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        self.epochs -= 1
        if self.epochs == 0:
            raise KeyboardInterrupt

    def teardown(self, estimator, context):
        pass


@pytest.fixture
def X():
    # a parabola: PCA is left for a network, with a refit on all rows
    rng = np.random.RandomState(0)
    t = rng.uniform(-2, 2, 150)
    return np.column_stack([t, t**2, -t, t**2 + t, t**2 - t]) + 0.02 * rng.standard_normal((150, 5))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fit.npz"


def assert_same(model, expected):
    for name in ("loss_curve_", "validation_curve_", "best_iter_", "best_loss_", "n_iter_"):
        np.testing.assert_array_equal(getattr(model, name), getattr(expected, name), name)
    weights, others = model.module_.state_dict(), expected.module_.state_dict()
    assert all(np.array_equal(weights[name], others[name]) for name in others)


def stopped(model, path, epochs, *arguments, **options):
    """The estimator, whose fit was interrupted after so many epochs; it is as it was before."""
    before = set(vars(model))
    with pytest.raises(KeyboardInterrupt):
        model.set_callbacks(Checkpoint(path, every=0), Interrupt(epochs)).fit(*arguments, **options)
    assert set(vars(model)) <= before | {"_skl_callbacks"}
    assert path.exists()
    return model.set_callbacks(Checkpoint(path, every=0))


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.__name__)
def test_every_member_goes_on(member, X, path):
    expected = member(2, **QUICK).fit(X)
    for epochs in (2, 3):  # twice: the second time from where the first ended
        stopped(member(2, **QUICK), path, epochs, X)
    assert_same(member(2, **QUICK).set_callbacks(Checkpoint(path)).fit(X), expected)


@pytest.mark.parametrize("epochs", [1, 5, 8, 9])
def test_choice_and_refit_go_on(epochs, X, path):
    expected = AutoEncoder(1, **QUICK).fit(X)
    assert expected.best_iter_ == 4  # the last ones are those of the refit
    model = stopped(AutoEncoder(1, **QUICK), path, epochs, X).fit(X)
    assert_same(model, expected)
    size = path.stat().st_size
    assert_same(model.fit(X), expected)
    assert path.stat().st_size == size


def test_a_fit_that_has_ended_trains_no_more(X, path, monkeypatch):
    expected = AutoEncoder(1, **QUICK).set_callbacks(Checkpoint(path)).fit(X)
    monkeypatch.setattr("skae._training.train_alone", None)
    assert_same(AutoEncoder(1, **QUICK).set_callbacks(Checkpoint(path)).fit(X), expected)


def test_the_fallback_is_kept_when_the_fit_goes_on(path):
    X = np.random.RandomState(0).standard_normal((60, 5))
    expected = AutoEncoder(2, **QUICK).fit(X)
    assert expected.best_iter_ == 0
    model = stopped(AutoEncoder(2, **QUICK), path, 3, X)
    for _ in range(2):
        assert_same(model.fit(X), expected)


@pytest.mark.parametrize("kind", ["folds", "weights", "sparse", "table", "map", "no validation", "own rows"])
def test_rows_of_every_kind(kind, X, path, monkeypatch, tmp_path):
    model, options = AutoEncoder(1, **QUICK), {}
    if kind == "folds":
        model.set_params(cv=KFold(2))
    elif kind == "weights":
        options["sample_weight"] = np.arange(len(X)) % 3
    elif kind == "sparse":
        X = sparse.csr_array(np.where(X > 0, X, 0))
    elif kind == "table":
        X = np.where(np.random.RandomState(0).rand(*X.shape) < 0.1, np.nan, X)
    elif kind == "map":
        monkeypatch.setattr(mapped_rows, "LEAST_BYTES", 0)
        np.save(tmp_path / "X.npy", X)
        X = np.load(tmp_path / "X.npy", mmap_mode="r")
    elif kind == "no validation":
        model.set_params(early_stopping=False)
    else:
        options["X_val"] = X[:20] + 0.1
    expected = model.fit(X, **options).module_.state_dict()
    again = stopped(AutoEncoder(**model.get_params()), path, 5, X, **options).fit(X, **options)
    found = again.module_.state_dict()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_in_a_pipeline(X, path):
    expected = make_pipeline(StandardScaler(), VAE(1, **QUICK)).fit(X)[-1]
    step = VAE(1, **QUICK).set_callbacks(Checkpoint(path, every=0), Interrupt(3))
    with pytest.raises(KeyboardInterrupt):
        make_pipeline(StandardScaler(), step).fit(X)
    step.set_callbacks(Checkpoint(path))
    assert_same(make_pipeline(StandardScaler(), step).fit(X)[-1], expected)


def test_warm_start_goes_on_from_its_own_file(X, path, tmp_path):
    def first():
        return AutoEncoder(1, warm_start=True, **QUICK).fit(X)

    model = stopped(first(), path, 2, X)
    assert_same(model.fit(X), first().fit(X))
    with pytest.raises(ValueError, match="the initial weights differ"):
        model.fit(X)  # this file is of the fit before


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_diverged_fit_goes_on_to_the_same_warning(X, path):
    options = QUICK | dict(learning_rate_init=1e30, max_iter=20)
    expected = VQVAE(2, **options).fit(X)
    model = VQVAE(2, **options).set_callbacks(Checkpoint(path, every=0))
    for _ in range(2):
        with pytest.warns(ConvergenceWarning, match="not finite in epoch"):
            assert_same(model.fit(X), expected)


def test_the_file_is_of_one_fit(X, path):
    model = AutoEncoder(1, **QUICK).set_callbacks(Checkpoint(path)).fit(X)
    for changed, message in (
        (dict(max_iter=5), "max_iter was 4 and is now 5"),
        (dict(hidden_layer_sizes=(16, 8)), r"hidden_layer_sizes was \[16\] and is now \[16, 8\]"),
        (dict(random_state=1, tol=0.1), "random_state was 0 and is now 1; tol was 0.0001 and is now 0.1"),
    ):
        other = AutoEncoder(**model.get_params() | changed).set_callbacks(Checkpoint(path))
        with pytest.raises(ValueError, match=f"is the checkpoint of another fit: {message}"):
            other.fit(X)
        assert not hasattr(other, "module_")
    for rows, message in (
        (X[:-1], "other rows train"),
        (np.where(np.arange(5) == 2, 2 * X, X), "the rows of X or their weights differ"),
        (X[:, ::-1], "the rows of X or their weights differ"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(rows)
    with pytest.raises(ValueError, match=r"no checkpoint of this fit: it is of .*AutoEncoder.*, not of .*VAE"):
        VAE(1, **QUICK).set_callbacks(Checkpoint(path)).fit(X)
    assert_same(model.fit(X), AutoEncoder(1, **QUICK).fit(X))


def test_what_cannot_have_a_checkpoint(X, path):
    checkpoint = Checkpoint(path)
    with pytest.raises(ValueError, match="needs an int as random_state of AutoEncoder"):
        AutoEncoder(1, max_iter=1).set_callbacks(checkpoint).fit(X)
    with pytest.raises(ValueError, match="one file for one fit, and GridSearchCV makes many"):
        GridSearchCV(
            AutoEncoder(1, **QUICK).set_callbacks(checkpoint), {"alpha": [0, 1]}, cv=2, error_score="raise"
        ).fit(X)
    with pytest.raises(TypeError, match="Checkpoint needs an estimator of skae, got Pipeline"):
        make_pipeline(AutoEncoder(1, **QUICK)).set_callbacks(checkpoint).fit(X)
    with pytest.raises(TypeError, match="got LogisticRegression"):
        LogisticRegression().set_callbacks(checkpoint).fit(X, X[:, 0] > 0)
    with pytest.raises(FileNotFoundError):
        AutoEncoder(1, **QUICK).set_callbacks(Checkpoint(path.parent / "none" / "fit.npz")).fit(X)
    with pytest.raises(ValueError, match="'every' parameter"):
        Checkpoint(path, every=-1)
    assert not path.exists()


@pytest.mark.parametrize("content", ["text", "npy", "half", "archive"])
def test_other_files_are_refused_and_stay(content, X, path):
    if content == "npy":
        with path.open("wb") as file:
            np.save(file, X)
    elif content == "archive":
        with path.open("wb") as file:
            np.savez(file, a=X)
    else:
        AutoEncoder(1, **QUICK).set_callbacks(Checkpoint(path)).fit(X)
        path.write_bytes(b"notes" if content == "text" else path.read_bytes()[: path.stat().st_size // 2])
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"fit.npz is no checkpoint of this fit: .* or remove the file"):
        AutoEncoder(1, **QUICK).set_callbacks(Checkpoint(path)).fit(X)
    assert path.read_bytes() == before


def test_a_file_is_whole_or_not_there(X, path, monkeypatch):
    """A write that fails half way leaves the file before it; the next fit goes on from that."""
    savez, written = np.savez, []

    def half(file, **arrays):
        written.append(arrays)
        if len(written) == 3:
            file.write(b"half")
            raise KeyboardInterrupt
        savez(file, **arrays)

    monkeypatch.setattr(np, "savez", half)
    model = AutoEncoder(1, **QUICK).set_callbacks(Checkpoint(path, every=0))
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert list(path.parent.iterdir()) == [path]
    assert not any(array.dtype == object for array in written[0].values())  # nothing that needs a pickle
    assert_same(model.fit(X), AutoEncoder(1, **QUICK).fit(X))


def test_what_a_kill_left_is_removed_later(X, path):
    old, new = (path.with_name(f"fit.npz.{name}.part") for name in ("old", "new"))
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (0, 0))
    AutoEncoder(1, **QUICK).set_callbacks(Checkpoint(path)).fit(X)
    assert sorted(path.parent.iterdir()) == sorted([path, new])


@pytest.mark.parametrize(
    ("every", "takes", "expected"),
    [(0, 1, 7), (15, 1, 4), (100, 1, 1), ("auto", 2, 3), ("auto", 12, 2)],
)
def test_the_file_is_written_when_it_is_time(every, takes, expected, X, path, monkeypatch):
    """Six epochs of ten seconds, or of a hundred for "auto", which a write of several seconds makes wait."""
    now, n_written = [0.0], []
    write = of_files.FitInFile.write

    class Clock(Interrupt):
        def on_fit_task_end(self, estimator, context):
            now[0] += 10 if every != "auto" else 100

    def counted(fit):
        n_written.append(1)
        write(fit)
        fit.took = takes

    monkeypatch.setattr(of_files.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(of_files.FitInFile, "write", counted)
    model = AutoEncoder(1, init="random", early_stopping=False, **QUICK | {"max_iter": 6})
    model.set_callbacks(Clock(0), Checkpoint(path, every=every)).fit(X)
    assert len(n_written) == expected


SCRIPT = """
import sys, numpy as np
from skae import {member}, Checkpoint
X = np.tanh(np.random.RandomState(0).standard_normal((400, 2))) @ np.random.RandomState(1).standard_normal((2, 20))
X += 0.1 * np.random.RandomState(2).standard_normal(X.shape)
model = {member}(2, max_iter={epochs}, hidden_layer_sizes=(256, 64), random_state=0)
try:
    model.set_callbacks(Checkpoint("fit.npz", every=0)).fit(X)
except KeyboardInterrupt:
    assert not [name for name in vars(model) if name.endswith("_")]
    sys.exit(1)
curves = dict(loss=model.loss_curve_, best=model.best_iter_, codes=model.transform(X))
np.savez("result.npz", **curves, **{{name: value.numpy() for name, value in model.module_.state_dict().items()}})
"""


def start(script, folder):
    return subprocess.Popen([sys.executable, "-W", "error", "-c", script], cwd=folder)


def killed(script, folder, how, delay):
    """Start the script, and end it so many seconds after it has written a file; whether it had not ended before."""
    path = folder / "fit.npz"
    before = path.stat().st_mtime_ns if path.exists() else None
    process = start(script, folder)
    while process.poll() is None and (not path.exists() or path.stat().st_mtime_ns == before):
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(how)
    return process.wait() != 0


def check_kills(tmp_path, member, epochs, signals, delays):
    script = SCRIPT.format(member=member, epochs=epochs)
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    assert start(script, tmp_path / "whole").wait() == 0
    n_killed = sum(killed(script, tmp_path / "stopped", *each) for each in zip(signals, delays, strict=True))
    assert start(script, tmp_path / "stopped").wait() == 0
    with np.load(tmp_path / "whole" / "result.npz") as whole, np.load(tmp_path / "stopped" / "result.npz") as found:
        assert whole.files == found.files
        for name in whole.files:
            np.testing.assert_array_equal(found[name], whole[name])
    return n_killed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process to kill")
def test_a_killed_process_goes_on(X, path):
    options = QUICK | dict(max_iter=15)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork where there are threads
        process = os.fork()
    if process == 0:
        try:
            torch.set_num_threads(1)
            AutoEncoder(1, **options).set_callbacks(Checkpoint(path, every=0)).fit(X)
        finally:
            os._exit(0)
    while not path.exists():
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    with np.load(path) as file:
        assert 0 < file["progress/n_done"] < 15
    model = AutoEncoder(1, **options)
    assert_same(AutoEncoder(1, **options).set_callbacks(Checkpoint(path)).fit(X), model.fit(X))


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("member", ["AutoEncoder", "VQVAE"])
def test_ten_kills_at_random_moments(member, tmp_path):
    delays = np.random.default_rng(0).uniform(0, 0.4, 13)
    signals = [signal.SIGKILL] * 10 + [signal.SIGINT] * 3
    assert check_kills(tmp_path, member, 150, signals, delays) == 13
