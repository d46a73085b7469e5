"""On the engines people already run: Dask and Ray, by their own conventions and by those of scikit-learn."""

import ast
import os
import re
import subprocess
import sys
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import VAE, AutoEncoder

MODELS = [AutoEncoder(2, random_state=0), VAE(2, random_state=0)]
GRID = {"autoencoder__n_components": [1, 2]}
NO_Y = (None,)  # Dask-ML's word for y=None
PAGE = Path(__file__).parents[1] / "docs" / "larger_data.md"
FILES, *BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
SCRIPT = next(block for block in BLOCKS if block.startswith("# train.py"))


@pytest.fixture
def blocks():
    """1200 rows in 4 blocks: more than partial_fit keeps."""
    rng = np.random.RandomState(0)
    t = rng.uniform(-2, 2, (1200, 2))
    return np.column_stack([t, t**2, t.prod(axis=1), np.sin(2 * t[:, 0])]).astype(np.float32)


def streamed(model, X, n_rows=300):
    model = clone(model)
    for start in range(0, len(X), n_rows):
        model.partial_fit(X[start : start + n_rows])
    return model


def as_frame(X):
    return pd.DataFrame(X, columns=list("abcdef")[: X.shape[1]])


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_a_chain_of_partial_fit_over_the_blocks_of_dask(model, blocks):
    dask, array = pytest.importorskip("dask"), pytest.importorskip("dask.array")

    @dask.delayed
    def partial_fit(model, block):  # as dask_ml.wrappers.Incremental does it
        return model.partial_fit(block, NO_Y)

    fitted = dask.delayed(clone(model))
    for block in array.from_array(blocks, chunks=(300, 6)).to_delayed().ravel():
        fitted = partial_fit(fitted, block)
    (fitted,) = dask.compute(fitted, scheduler="synchronous")
    assert fitted.n_samples_ == 1200
    np.testing.assert_array_equal(fitted.transform(blocks), streamed(model, blocks).transform(blocks))


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_blocks_and_partitions_of_dask_are_transformed_where_they_lie(blocks, scheduler):
    array, dataframe = pytest.importorskip("dask.array"), pytest.importorskip("dask.dataframe")
    model = AutoEncoder(2, max_iter=2, random_state=0).fit(blocks)
    X = array.from_array(blocks, chunks=(400, 6))
    Z = X.map_blocks(model.transform, dtype=X.dtype, chunks=(X.chunks[0], (model.n_components_,)))
    assert Z.shape == (1200, 2)
    np.testing.assert_array_equal(Z.compute(scheduler=scheduler), model.transform(blocks))
    back = Z.map_blocks(model.inverse_transform, dtype=X.dtype, chunks=X.chunks)
    np.testing.assert_array_equal(back.compute(scheduler=scheduler), model.inverse_transform(model.transform(blocks)))
    frame = as_frame(blocks)
    model = AutoEncoder(2, max_iter=2, random_state=0).set_output(transform="pandas").fit(frame)
    found = dataframe.from_pandas(frame, npartitions=4).map_partitions(model.transform).compute(scheduler=scheduler)
    pd.testing.assert_frame_equal(found, model.transform(frame))


@pytest.mark.parametrize("kind", ["array", "frame"])
def test_the_wrappers_of_dask_ml(blocks, kind):
    wrappers = pytest.importorskip("dask_ml.wrappers", reason="needs Dask-ML: pip install dask-ml")
    from dask import array, dataframe

    X = array.from_array(blocks, chunks=(300, 6))
    if kind == "frame":
        X = dataframe.from_pandas(as_frame(blocks), npartitions=4)
    rows = np.asarray(X.compute())
    found = wrappers.Incremental(AutoEncoder(2, random_state=0), shuffle_blocks=False).fit(X)
    expected = streamed(AutoEncoder(2, random_state=0), as_frame(rows) if kind == "frame" else rows)
    assert found.n_samples_ == expected.n_samples_ == 1200
    np.testing.assert_array_equal(found.estimator_.transform(X.compute()), expected.transform(X.compute()))
    fitted = wrappers.ParallelPostFit(AutoEncoder(2, max_iter=2, random_state=0)).fit(X.compute())
    np.testing.assert_array_equal(np.asarray(fitted.transform(X).compute()), fitted.estimator.transform(X.compute()))


@contextmanager
def workers_of(engine, processes=False):
    """joblib's backend on two workers of an engine."""
    if engine == "dask":
        distributed = pytest.importorskip("distributed")
        cluster = dict(n_workers=2, threads_per_worker=1, processes=processes, dashboard_address=None)
        backend = joblib.parallel_config
        with distributed.LocalCluster(**cluster) as cluster, distributed.Client(cluster), backend(backend="dask"):
            yield
        return
    ray = pytest.importorskip("ray", reason="needs Ray: pip install ray")
    from ray.util.joblib import register_ray

    register_ray()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with joblib.parallel_config(backend="ray"):
            yield
    finally:
        ray.shutdown()


def search(X):
    pipeline = make_pipeline(StandardScaler(), AutoEncoder(max_iter=2, random_state=0))
    return GridSearchCV(pipeline, GRID, cv=2).fit(X)


def assert_same_results(found, expected):
    """Of searches, but for times, which differ from run to run."""
    assert found.cv_results_.keys() == expected.cv_results_.keys()
    for name, values in expected.cv_results_.items():
        if "_time" not in name:
            np.testing.assert_array_equal(found.cv_results_[name], values, err_msg=name)
    assert found.best_params_ == expected.best_params_


def test_a_search_on_dask_has_the_results_of_one_process(blocks):
    X = blocks[:200]
    with workers_of("dask"):
        found = search(X)
    expected = search(X)
    assert_same_results(found, expected)
    np.testing.assert_array_equal(found.transform(X), expected.transform(X))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_a_search_in_processes_of_an_engine_has_the_results_of_one(blocks, engine):
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # of the engines' own
        with workers_of(engine, processes=True):
            found = search(blocks)
    assert_same_results(found, search(blocks))


def packages(block):
    """Names of the packages that a block of code imports."""
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (name.partition(".")[0] for name in names)


@pytest.mark.parametrize(
    "block", [pytest.param(block, marks=[pytest.mark.slow] * ("import ray" in block)) for block in BLOCKS]
)
def test_code_of_the_page_runs(block, tmp_path, monkeypatch):
    absent = {package for package in packages(block) if find_spec(package) is None}
    if absent:
        pytest.skip(f"needs {', '.join(absent)}")
    monkeypatch.chdir(tmp_path)
    for part in (FILES, block):
        exec(compile(part, PAGE.name, "exec"), {})


@pytest.mark.slow
def test_the_script_of_the_page_runs_in_two_processes(tmp_path):
    (tmp_path / "files.py").write_text(FILES)
    (tmp_path / "train.py").write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    for command in (["files.py"], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py"]):
        subprocess.run([sys.executable, *command], cwd=tmp_path, env=environment, check=True)
    model, X = joblib.load(tmp_path / "model.joblib"), np.load(tmp_path / "rows.npy")
    assert model.n_samples_ == len(X)
    np.testing.assert_allclose(model.mean_, X.mean(axis=0, dtype=float), rtol=1e-6)
