"""benchmarks/quality: runs against what can go wrong, and the page that they become."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from contextlib import chdir
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn import datasets

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
QUALITY = BENCHMARKS / "quality"
# Enough of the family where what is tested is not the methods.
SKAE = "skae[estimator_name=[AutoEncoder,DenoisingAutoEncoder,VAE]]"


def run(*arguments, cwd, check=True, **environment):
    """What ``benchopt run`` prints: called here, as a process of its own would import everything anew."""
    from benchopt.cli.main import run as command

    environment = {"BENCHOPT_CACHE": str(cwd / "cache"), "NO_COLOR": "1"} | environment
    with chdir(cwd), warnings.catch_warnings():
        warnings.simplefilter("default")
        ended = CliRunner().invoke(command, [str(QUALITY), "--no-plot", *map(str, arguments)], env=environment)
    assert not check or ended.exit_code == 0, f"{ended.output}{ended.exception!r}"
    return re.sub(r"\x1b\[[0-9;]*m", "", ended.output)


def run_alone(*arguments, cwd, **environment):
    """``benchopt run`` in a process of its own, as its environment is read when libraries are imported."""
    command = [sys.executable, "-m", "benchopt", "run", str(QUALITY), "--no-plot", *map(str, arguments)]
    environment = os.environ | {"BENCHOPT_CACHE": str(cwd / "cache")} | environment
    ended = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def figures(path):
    frame = pd.read_parquet(path)
    return frame.rename(columns=lambda name: name.removeprefix("objective_")).set_index(["dataset_name", "solver_name"])


METHODS = """
import numpy as np
from benchmark_utils.method import Method
from sklearn.decomposition import PCA

class Broken(PCA):
    def fit_transform(self, X, y=None):
        {body}

class Solver(Method):
    name = "{name}"

    def estimator(self, n_components, random_state, X):
        return Broken(n_components)
"""


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """Path of the parquet file of one run: a table of one's own and pictures, methods that work and that fail."""
    folder = tmp_path_factory.mktemp("small_run")
    X, y = datasets.load_diabetes(return_X_y=True, as_frame=True)
    X.assign(price=y + 0.5)[:40].to_csv(folder / "my.csv", index=False)
    X, y = datasets.load_digits(return_X_y=True)
    np.savez(folder / "digits.npz", X=X[y < 3][:48], y=y[y < 3][:48])
    (code,) = re.findall(r"```python\n(.*?)```", (BENCHMARKS / "README.md").read_text(), flags=re.DOTALL)
    (folder / "my_method.py").write_text(code)
    broken = {
        "raises": "raise RuntimeError('no such thing')",
        "infinite": "self.fit(X); return np.full((len(X), 2), np.inf)",
    }
    for name, body in broken.items():
        (folder / f"{name}.py").write_text(METHODS.format(name=name, body=body))
    solvers = [folder / "my_method.py", folder / "raises.py", folder / "infinite.py", "PCA", "LDA"]
    run(
        *("-d", f"file[path={folder / 'my.csv'},target=price]", "-d", f"file[path={folder / 'digits.npz'}]"),
        *(option for solver in solvers for option in ("-s", solver)),
        *("-o", "*[n_components=[2,3]]", "--output", folder / "my.parquet"),
        cwd=folder,
    )
    return folder / "my.parquet"


def test_a_method_that_fails_is_a_marked_cell(small_run):
    of_table = figures(small_run).loc["file[my.csv,target=price]"]
    assert set(of_table.loc["raises", "reason"]) == {"RuntimeError: no such thing"}
    assert set(of_table.loc["infinite", "reason"]) == {"ValueError: the codes of the train rows are not finite"}
    assert set(of_table.loc["PCA[whiten=False]", "reason"]) == {""}
    assert of_table.loc["PCA[whiten=False]", "test_r2"].min() > 0.2


def test_the_method_of_the_readme(small_run):
    results = figures(small_run).xs("random projection[dense=True]", level="solver_name")
    assert len(results) == 4
    assert set(results["reason"]) == {""}
    assert results["test_r2"].notna().all()


def test_what_hangs_dies_or_takes_all_memory_is_one_line(utils):
    guard = utils["guard"]

    def odd():
        raise type("Odd", (Exception,), {"__init__": lambda self, a, b: None})(1, 2)  # cannot be pickled

    calls = {
        "ran past its limit of 1 s": (time.sleep, 600),
        "needed more than its 2 GB of memory": (np.ones, 2 * 10**9),
        "its process ended with code 3": (os._exit, 3),
        "Odd:": (odd,),
    }
    for reason, (function, *arguments) in calls.items():
        with pytest.raises(guard.Failed, match=reason):
            guard.call(function, *arguments, seconds=1 if function is time.sleep else 60, gigabytes=2)
    assert guard.call(max, 2, 3, seconds=60, gigabytes=2) == 3  # and the next call finds a process


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path):
    arguments = [
        "-d",
        "bundled[iris]",
        "-d",
        "bundled[wine]",
        "-d",
        "bundled[diabetes]",
        "-s",
        "PCA",
        "-s",
        "NMF",
        "-o",
        "*[n_components=2]",
        "-j",
        "2",
    ]
    command = [sys.executable, "-m", "benchopt", "run", str(QUALITY), "--no-plot", *arguments]
    environment = os.environ | {"BENCHOPT_CACHE": str(tmp_path / "cache"), "PYTHONUNBUFFERED": "1"}
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        while (tmp_path / "log").read_text().count("done") < 2 and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    finished = len(re.findall(r"\|--.*done", (tmp_path / "log").read_text()))
    assert 0 < finished < 6
    printed = run(*arguments, "--output", tmp_path / "run.parquet", cwd=tmp_path)
    assert printed.count("cached") >= finished - 1  # the last one may have been printed while it was being written
    assert len(figures(tmp_path / "run.parquet")) == 6
    printed = run(*arguments, "--output", tmp_path / "again.parquet", cwd=tmp_path)
    assert printed.count("cached") == 6
    again, first = figures(tmp_path / "again.parquet"), figures(tmp_path / "run.parquet")
    assert again["fit_seconds"].sort_index().equals(first["fit_seconds"].sort_index())


def test_a_changed_table_is_no_cached_one(tmp_path):
    rng = np.random.RandomState(0)
    table = pd.DataFrame(rng.standard_normal((40, 3)), columns=list("abc"))
    arguments = ["-d", "file[path=my.csv]", "-s", "PCA"]
    scores = []
    for i, factor in enumerate((1, 1, 5)):
        table.assign(c=table["a"] * factor + table["c"]).to_csv(tmp_path / "my.csv", index=False)
        printed = run(*arguments, "--output", tmp_path / f"{i}.parquet", cwd=tmp_path)
        assert ("cached" in printed) == (i == 1)
        scores.append(figures(tmp_path / f"{i}.parquet")["test_r2"].iloc[0])
    assert scores[0] == scores[1] != scores[2]


def test_nothing_of_the_held_out_rows_reaches_the_fit():
    from benchopt.benchmark import Benchmark
    from benchopt.utils.run_context import RunContext

    X, y = datasets.load_wine(return_X_y=True)
    tasks = []
    for _ in range(2):
        objective = Benchmark(QUALITY).get_benchmark_objective().get_instance(n_components=2)
        RunContext().set_run_context(objective, "data", "method", repetition=0, base_seed=0)
        objective.set_data(X=X, y=y, kind="table", target="classes")
        tasks.append(objective.get_objective()["task"])
        X = X.copy()
        X[objective._split()[1]] += 1_000
    assert (tasks[0]["X"] == tasks[1]["X"]).all()
    assert np.allclose(tasks[0]["X"].mean(axis=0), 0)
    assert not np.allclose(tasks[0]["groups"]["test"], tasks[1]["groups"]["test"])
    assert len(tasks[0]["X"]) + len(tasks[0]["groups"]["test"]) == len(X)


@pytest.mark.slow
def test_dask_gives_the_figures_of_one_process(tmp_path):
    pytest.importorskip("distributed")
    arguments = ["-d", "bundled[wine]", "-d", "simulated[shape=swiss_roll,n_samples=150]", "-r", 2, "--no-cache"]
    arguments += [option for name in ("PCA", "t-SNE", "UMAP", SKAE) for option in ("-s", name)]
    run(*arguments, "--output", tmp_path / "one.parquet", cwd=tmp_path)
    cluster = ["--parallel-config", QUALITY / "dask.yml"]
    output = ["--output", tmp_path / "two.parquet"]
    run_alone(*arguments, *cluster, *output, cwd=tmp_path, DASK_DISTRIBUTED__WORKER__DAEMON="false")
    one, two = (
        figures(tmp_path / f"{name}.parquet").set_index("idx_rep", append=True).sort_index() for name in ("one", "two")
    )
    assert (one["reason"] == "").all()
    prefixes = ("test_", "train_", "noisy_", "masked_", "agreement")
    same = [c for c in one if c.startswith(prefixes)]
    assert len(same) > 40
    pd.testing.assert_frame_equal(one[same], two[same], check_exact=True)


def test_bad_input_on_the_command_line(tmp_path):
    printed = run("-d", "file[path=no_such.csv]", "-s", "PCA", cwd=tmp_path, check=False)
    assert "Reason: there is no file 'no_such.csv'" in printed
    assert "Traceback" not in printed


def module_of(path):
    """A file of the benchmark as a module; benchopt finds what it shares with the others."""
    from benchopt.benchmark import Benchmark

    Benchmark(QUALITY)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def report():
    return module_of(BENCHMARKS / "quality_report.py")


class Seen(HTMLParser):
    """What a browser would load, the alternative texts, and whether every element that needs one has an end."""

    def __init__(self, page):
        super().__init__()
        self.loaded, self.alts, self.anchors, self.open = [], [], set(), []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.loaded += [given[name] for name in ("src", "href") if name in given]
        self.alts += [given.get("alt")] if tag == "img" else []
        self.anchors |= {given["id"]} if "id" in given else set()
        if tag in ("details", "table", "svg", "figure", "div", "h2", "title"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and tag == self.open[-1]:
            self.open.pop()


def test_page_of_ones_own_table(report, small_run):
    page = report.page(report.read_results(small_run))
    seen = Seen(page)
    assert seen.open == []
    assert {link[:5] if link.startswith("data:") else "#" for link in seen.loaded} == {"data:", "#"}  # no network
    assert {link[1:] for link in seen.loaded if link.startswith("#")} <= seen.anchors
    assert all(seen.alts)
    assert len(seen.alts) == 2 * 3  # the originals and what two methods rebuild, at two sizes
    assert "<script" not in page
    assert page.index("The method to take") < page.index("<h2 id=maps>") < page.index("<h2 id=rebuild>")
    assert "my.csv,target=price" in page
    assert page.count("class=map>") == 5  # PCA and the projection of both sets, LDA where there are classes
    for reason in ("needs class labels", "failed: no such thing", "gave codes that are not finite"):
        assert reason in page
    assert "ConditionalVAE takes no part" in page
    assert len(page) < 150_000


def test_results_are_written_between_their_marks(report, small_run, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "HERE", tmp_path)
    (tmp_path / "results.md").write_text("before\n<!-- quality: begin -->\nSTALE\n<!-- quality: end -->\nafter\n")
    report.write_results(report.read_results(small_run))
    written = (tmp_path / "results.md").read_text()
    assert written.startswith("before\n")
    assert written.endswith("<!-- quality: end -->\nafter\n")
    assert "STALE" not in written
    assert "| Rebuild rows (R²) | 2 | **PCA** |" in written


SOLVERS = sorted((QUALITY / "solvers").glob("*.py"))


# UMAP compiles for some seconds
@pytest.mark.parametrize(
    "path", [pytest.param(p, marks=[pytest.mark.slow] * (p.stem == "umap"), id=p.stem) for p in SOLVERS]
)
def test_every_method_encodes_a_small_table(path):
    X, y = datasets.load_iris(return_X_y=True)
    solver = module_of(path).Solver
    parameters = dict(skae={"max_iter": 1}, plain_autoencoder={"n_epochs": 1}, rbm={"n_iter": 1}).get(path.stem, {})
    names = solver.parameters.get("estimator_name", [None])
    for name in names:
        method = solver.get_instance(**parameters, **({} if name is None else {"estimator_name": name}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a library says of so small a table
            codes = method.estimator(2, 0, X).fit_transform(X, y)
        assert np.shape(codes)[0] == len(X)
        assert np.isfinite(np.asarray(codes, dtype=float)).all()
    assert "ConditionalVAE" not in names  # without a condition it is VAE


@pytest.mark.slow
def test_benchopts_own_tests(tmp_path):
    """Every method on the smallest data, every data set that can be had."""
    command = [sys.executable, "-m", "benchopt", "test", str(QUALITY), "--skip-install"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it starts the pytest that it finds there
    environment = os.environ | {"PATH": path}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-5000:]
    assert " passed" in ended.stdout
