"""Data larger than memory: memory maps that are read in blocks, and files and batches that become one."""

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skae
from skae import VAE, AutoEncoder, ConditionalVAE, memory_map
from skae import _mapped as mapped_rows
from skae._axes import principal_axes
from skae._mapped import EveryRow, MappedRows, release
from skae._scaling import Scaler

QUICK = dict(max_iter=3, random_state=0)
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MEMBERS = [getattr(skae, name) for name in skae.__all__ if issubclass(getattr(skae, name), skae.BaseAutoEncoder)]
MEMBERS.remove(skae.BaseAutoEncoder)
MEMBERS.remove(skae.NeighborAutoEncoder)  # it looks for neighbours among all rows


@pytest.fixture
def small_blocks(monkeypatch):
    """Every memory map is read in blocks, of 16 rows of 8 columns."""
    monkeypatch.setattr(mapped_rows, "LEAST_BYTES", 0)
    monkeypatch.setattr(mapped_rows, "BLOCK_BYTES", 2**9)
    monkeypatch.setattr(mapped_rows, "WINDOW_BYTES", 2**12)


@pytest.fixture
def X():
    rng = np.random.RandomState(0)
    return (np.tanh(rng.standard_normal((1000, 2))) @ rng.standard_normal((2, 8)) + 0.1 * rng.randn(1000, 8)).astype(
        "f4"
    )


@pytest.fixture
def written(tmp_path):
    def write(X, mode="r"):
        np.save(tmp_path / "X.npy", X)
        return np.load(tmp_path / "X.npy", mmap_mode=mode)

    return write


def rows_of(X):
    return MappedRows(X, Scaler().fit(np.array(X)), torch.device("cpu"))


@pytest.mark.parametrize("batch_size", [7, 64, 5000])
def test_an_epoch_has_each_row_once_but_those_held_out(X, written, small_blocks, batch_size):
    out = torch.tensor([0, 17, 999])
    x, rows = rows_of(written(X)), EveryRow(*X.shape, 0, out)
    batches = list(x.batches(rows, batch_size))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    found, expected = torch.cat(batches), x[torch.tensor([i for i in range(1000) if i not in (0, 17, 999)])]
    assert len(found) == len(rows) == 997
    torch.testing.assert_close(found[found[:, 0].argsort()], expected[expected[:, 0].argsort()])
    assert not torch.isin(rows.sample, out).any()


def test_rows_from_all_over_the_map_are_in_a_batch(written, small_blocks):
    torch.manual_seed(0)  # blocks are drawn
    X = np.repeat(np.arange(1000.0)[:, None], 8, axis=1)
    first = next(rows_of(written(X)).batches(EveryRow(*X.shape, 0), 64))
    places = first[:, 0] * X.std() + X.mean()
    assert places.max() - places.min() > 500
    assert (places.diff().abs() == 1).float().mean() < 0.2


def test_axes_of_all_rows_by_pieces(X, written, small_blocks):
    x = rows_of(written(X))
    some, whole = EveryRow(*X.shape, 0, torch.arange(100)), x[torch.arange(1000)]
    for found, expected in (
        (principal_axes(x, 2, some), principal_axes(whole, 2, torch.arange(100, 1000))),
        (principal_axes(x, 2, EveryRow(*X.shape, 0)), principal_axes(whole, 2)),
    ):
        torch.testing.assert_close(found.variances, expected.variances)
        torch.testing.assert_close(found.axes.abs(), expected.axes.abs(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.__name__)
def test_every_member_fits_a_memory_map(member, X, written, small_blocks):
    mapped = written(X)
    options = dict(max_iter=10, random_state=0) | ({"n_channels": 4} if member.__name__ == "TDVAE" else {})
    model = member(2, **options).fit(mapped)
    again = member(2, **options).fit(written(X))
    np.testing.assert_array_equal(model.transform(mapped), again.transform(X))
    assert model.score(mapped) == pytest.approx(member(2, **options).fit(X).score(X), abs=0.5)
    assert model.n_samples_ == len(X)


def test_a_map_and_an_array_in_blocks_give_the_same_bits(X, written, small_blocks):
    in_memory = X.view(np.memmap)  # no file behind it
    assert in_memory._mmap is None
    for model in (AutoEncoder(2, **QUICK), VAE(2, **QUICK), AutoEncoder(2, early_stopping=False, **QUICK)):
        weights = [dict(model.fit(rows).module_.state_dict()) for rows in (written(X), in_memory)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("dtype", ["float16", "float64", "int16", ">f4"])
def test_maps_of_any_number(X, written, small_blocks, dtype):
    values = (100 * X).astype(dtype)
    model = AutoEncoder(2, **QUICK).fit(written(values))
    assert model.score(written(values)) > 0.9
    codes = model.transform(written(values))
    assert codes.dtype == (np.float32 if np.dtype(dtype) == np.float32 else np.float64)


def test_linear_network_is_pca_of_all_rows(X, written, small_blocks):
    model = AutoEncoder(2, hidden_layer_sizes=(), random_state=0).fit(written(X))
    pca = PCA(2).fit(X)
    expected = 1 - np.square(X - pca.inverse_transform(pca.transform(X))).sum() / np.square(X - X.mean(0)).sum()
    assert model.score(X) == pytest.approx(expected, abs=1e-5)
    share = AutoEncoder(0.9, **QUICK).fit(written(X))
    assert share.n_components_ == AutoEncoder(0.9, **QUICK).fit(X).n_components_


def test_transform_into_another_map(X, written, small_blocks, tmp_path):
    model = AutoEncoder(2, **QUICK).fit(written(X))
    out = np.lib.format.open_memmap(tmp_path / "codes.npy", mode="w+", dtype="f4", shape=(1000, 2))
    assert model.transform(written(X), out=out) is out
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), model.transform(X))
    with pytest.raises(ValueError, match=r"out must be an array of .* \(1000, 2\), got float64 and \(1000, 3\)"):
        model.transform(X, out=np.empty((1000, 3)))


def test_validation_rows_of_ones_own_and_partial_fit(X, written, small_blocks):
    held_out = X[:100] + 1
    model = AutoEncoder(2, **QUICK).fit(written(X), X_val=held_out)
    seen = AutoEncoder(2, **QUICK).fit(X, X_val=held_out)
    assert model.validation_curve_[0] == pytest.approx(seen.validation_curve_[0], rel=1e-3)
    before = model.score(X)
    assert model.partial_fit(written(X)).score(X) == pytest.approx(before, abs=0.05)
    assert AutoEncoder(2, random_state=0).partial_fit(written(X)).score(X) > 0.9


def test_missing_cells_conditions_and_codes_of_categories(X, written, small_blocks, monkeypatch):
    rng = np.random.RandomState(0)
    holed = np.where(rng.rand(*X.shape) < 0.2, np.nan, X)
    for member in (AutoEncoder, VAE):
        model = member(2, **QUICK).fit(written(holed))
        assert model.module_.fills
        assert model.score(written(holed)) > member(2, **QUICK).fit(holed).score(holed) - 0.5
    coded = np.column_stack([X, rng.randint(3, size=len(X)) + 0.0])
    coded[5, 8] = np.nan
    table = VAE(2, categorical_features=[8], **QUICK).fit(written(coded))
    assert set(table.inverse_transform(table.transform(written(coded)))[:, 8]) <= {0.0, 1.0, 2.0}
    unknown, missing = coded.copy(), coded.copy()
    unknown[:, 8], missing[:, 8] = 3, np.nan
    np.testing.assert_array_equal(table.transform(written(unknown)), table.transform(written(missing)))
    given = ConditionalVAE(2, condition_features=[8], categorical_features=[8], **QUICK).fit(written(coded))
    assert given.sample(3, condition=[1], random_state=0)[:, 8].tolist() == [1, 1, 1]
    rare = X.copy()
    outside = np.setdiff1d(np.arange(1000), mapped_rows._drawn(1000, 8, 0, 900))[:1]
    rare[outside, 2] = np.nan
    monkeypatch.setattr(mapped_rows, "MOST_ROWS", 900)
    assert ConditionalVAE(2, condition_features=[0], **QUICK).fit(written(rare)).module_.fills
    assert ConditionalVAE(2, condition_features=[2], **QUICK).fit(written(rare)).n_conditions_ == 2
    rare[:, 2] = np.nan
    rare[outside, 2] = 1
    with pytest.raises(ValueError, match=r"Columns \[2\] of the memory map are observed in too few"):
        ConditionalVAE(2, condition_features=[0], **QUICK).fit(written(rare))
    with pytest.raises(ValueError, match="must be codes 0, 1, 2"):
        VAE(2, categorical_features=[0], **QUICK).fit(written(coded))


def test_probabilities(X, written, small_blocks):
    inside = (X > 0).astype("f4")
    model = VAE(2, likelihood="bernoulli", **QUICK).fit(written(inside))
    outside = inside.copy()
    outside[:5] += 0.5
    np.testing.assert_array_equal(model.transform(written(outside)), model.transform(outside))
    assert model.score(written(outside)) == model.score(outside)
    with pytest.raises(ValueError, match=r"X must be in \[0, 1\]"):
        model.transform(written(3 * X))
    with pytest.raises(ValueError, match=r"X must be in \[0, 1\]"):
        VAE(2, likelihood="bernoulli", **QUICK).fit(written(X))


def test_neighbours_need_rows_in_memory(X, written, small_blocks):
    mapped, model = written(X), skae.NeighborAutoEncoder(hidden_layer_sizes=8, **QUICK)
    for method in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=r"needs X in memory, as it looks for neighbours .* Use np.array\(X\)"):
            method(mapped)
    assert not hasattr(model, "module_")
    np.testing.assert_array_equal(model.fit(X).transform(mapped), model.transform(X))
    placed = model.set_params(transform_neighbors=3).fit(X)
    np.testing.assert_allclose(placed.transform(mapped), placed.transform(X))
    reconstructing = skae.NeighborAutoEncoder(neighbor_weight=0, hidden_layer_sizes=8, **QUICK)
    assert reconstructing.fit(mapped).score(mapped) > 0.5


def test_what_a_map_cannot_have(X, written, small_blocks):
    mapped = written(X)
    for options in (dict(sample_weight=np.ones(1000)), dict(groups=np.arange(1000) // 10)):
        with pytest.raises(ValueError, match="sample_weight, groups and cv need X in memory"):
            AutoEncoder(2, **QUICK).fit(mapped, **options)
    with pytest.raises(ValueError, match="sample_weight, groups and cv need X in memory"):
        AutoEncoder(2, cv=3, **QUICK).fit(mapped)
    broken = X.copy()
    broken[700, 3] = np.inf
    model = AutoEncoder(2, **QUICK)
    with pytest.raises(ValueError, match="Input X contains infinity, between rows"):
        model.fit(written(broken))
    broken[:, 3] = np.nan
    with pytest.raises(ValueError, match=r"columns without an observed value: \[3\]"):
        model.fit(written(broken))
    with pytest.raises(ValueError, match="must be one of numbers"):
        model.fit(written(X.astype(str)))
    assert not hasattr(model, "module_")
    with pytest.raises(ValueError, match="X has 7 features, but AutoEncoder is expecting 8"):
        model.fit(mapped).transform(written(X[:, :7]))


def test_small_maps_are_as_arrays_and_searches_work(X, written):
    model = AutoEncoder(2, **QUICK)
    np.testing.assert_array_equal(model.fit(written(X)).transform(X), model.fit(X).transform(X))
    search = GridSearchCV(make_pipeline(StandardScaler(), model), {"autoencoder__n_components": [1, 2]}, cv=2)
    assert search.fit(written(X)).best_params_ == {"autoencoder__n_components": 2}


def test_a_copy_on_write_map_keeps_what_was_written(X, written):
    for mode in ("c", "r+"):
        rows = written(X, mode)
        rows[3] = 7
        release(rows)
        assert (rows[3] == 7).all()
    release(X)


@pytest.fixture
def forbid_copies(monkeypatch):
    """From then on, nothing is made of a memory map that is a third as large, but what lies in it."""

    def guarded(name):
        original = getattr(np.memmap, name)

        def call(X, *arguments):
            result = original(X, *arguments)
            if np.size(result) > X.size / 3 and not np.may_share_memory(result, X):
                raise AssertionError(f"{name} of a memory map copies it.")
            return result

        return call

    def forbid():
        for name in ("__getitem__", "__array_wrap__", "copy", "astype", "clip", "__array__"):
            monkeypatch.setattr(np.memmap, name, guarded(name))

    return forbid


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("options", [{}, dict(condition_features=[2]), dict(categorical_features=[2])])
def test_no_map_is_copied_to_be_scored(options, likelihood, missing, X, written, small_blocks, forbid_copies):
    if likelihood == "bernoulli" and "categorical_features" in options:
        pytest.skip("categories have a likelihood of their own")
    X = (X > 0).astype("f4")
    X[:, 2] += 5 * ("condition_features" in options)  # a condition need not be in [0, 1]
    if missing:
        X[::7, 3] = np.nan
    mapped = written(X)
    member = ConditionalVAE if "condition_features" in options else VAE
    model = member(2, likelihood=likelihood, **options, **QUICK).fit(mapped)
    forbid_copies()
    with pytest.raises(AssertionError, match="copies it"):
        mapped[:, [0, 1, 2, 3]]
    found = model.score_samples(mapped, n_draws=2)
    np.testing.assert_array_equal(found, model.score_samples(X, n_draws=2))
    if likelihood == "bernoulli":
        with pytest.raises(ValueError, match=r"X must be in \[0, 1\]"):
            model.transform(written(3 * X))


@pytest.mark.slow
def test_memory_stays_flat(tmp_path, monkeypatch):
    """A gigabyte in a process of its own: what is resident rises by at most 300 MB in fit, score and transform."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    script = importlib.import_module("memory_map")
    script.write(tmp_path / "X.npy", 2**22)
    assert script.measured(tmp_path / "X.npy", "map", 1)[2] < 300


# Files and batches.


@pytest.fixture
def frame():
    rng = np.random.RandomState(0)
    size = rng.standard_normal(600)
    frame = pd.DataFrame(
        {"size": size, "color": np.where(size > 0, "red", "blue"), "flag": size > 1, "n": np.arange(600)}
    )
    return frame.assign(color=frame["color"].mask(rng.rand(600) < 0.1), size=frame["size"].mask(rng.rand(600) < 0.1))


@pytest.mark.parametrize("kind", ["parquet", "csv", "folder", "pandas", "polars", "pyarrow"])
def test_tables_become_a_map(frame, tmp_path, kind):
    if kind == "parquet":
        frame.to_parquet(source := tmp_path / "table.parquet", row_group_size=100)
    elif kind == "csv":
        frame.to_csv(source := tmp_path / "table.csv", index=False)
    elif kind == "folder":
        source = tmp_path / "parts"
        source.mkdir()
        for i in range(3):
            frame[200 * i : 200 * (i + 1)].to_parquet(source / f"{i}.parquet")
    else:
        parts = [frame[100 * i : 100 * (i + 1)] for i in range(6)]
        make = {"pandas": lambda part: part, "polars": pl.from_pandas, "pyarrow": pyarrow.Table.from_pandas}[kind]
        source = (make(part.reset_index(drop=True)) for part in parts)
    table = memory_map(source, tmp_path / "X.npy")
    assert table.X.shape == (600, 4)
    assert isinstance(table.X, np.memmap)
    assert table.names == list(frame)
    np.testing.assert_allclose(table.X[:, [0, 3]], frame[["size", "n"]].to_numpy(float), rtol=1e-6)
    for place in table.categorical_features:
        values = frame.iloc[:, place]
        codes, known = table.X[:, place], table.categories[table.names[place]]
        assert np.isnan(codes).tolist() == values.isna().tolist()
        assert [known[int(code)] for code in codes[~np.isnan(codes)]] == values[values.notna()].tolist()
    assert table.categorical_features == [1, 2]
    model = AutoEncoder(2, categorical_features=table.categorical_features, **QUICK).fit(table.X)
    assert model.transform(table.X).shape == (600, 2)


def test_categories_that_appear_later_keep_the_codes_of_the_first(tmp_path):
    parts = [pd.DataFrame({"a": ["x", "y"]}), pd.DataFrame({"a": ["b", None]}), pd.DataFrame({"a": [None, "y"]})]
    table = memory_map(parts, tmp_path / "X.npy")
    np.testing.assert_array_equal(table.X.ravel(), [0, 1, 2, np.nan, np.nan, 1])
    assert table.categories == {"a": ["x", "y", "b"]}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (lambda p: [p, p[["size"]]], "A part of the table has the columns"),
        (lambda p: [], "no rows"),
        (lambda p: [p[:0]], "no rows"),
        (lambda p: [p, p.assign(size="large")], "'size' is of categories in a part of the table and of numbers"),
        (lambda p: [p.assign(color=None), p], "'color' is of categories in a part of the table and of numbers"),
        (lambda p: [p, p.assign(size=pd.Timestamp("2020"))], "'size' has the dtype datetime64"),
        (lambda p: [p, p.assign(color=1.0)], "'color' is of numbers in a part of the table and of categories"),
        (lambda p: [p, p.assign(size=1e300)], "'size' has numbers that are infinite in float32"),
        (lambda p: [p.assign(color=[f"{i}{j}" for j in range(600)]) for i in "ab"], "more than 1000 categories"),
        (lambda p: [p.set_axis(["a", "a", "b", "c"], axis=1)], "more than one column with the name 'a'"),
        (lambda p: [[1.0, 2.0]], "must be a data frame or a 2D array"),
    ],
)
def test_bad_parts_leave_the_file_that_was_there(frame, tmp_path, parts, message):
    before = memory_map(frame, tmp_path / "X.npy").X
    with pytest.raises(ValueError, match=message):
        memory_map(parts(frame), tmp_path / "X.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "X.npy"), before)
    assert [file.name for file in tmp_path.iterdir()] == ["X.npy"]


def test_a_map_can_be_written_anew_from_itself(tmp_path):
    first = memory_map(np.ones((1000, 3)), tmp_path / "X.npy").X
    second = memory_map((2 * first[start : start + 100] for start in range(0, 1000, 100)), tmp_path / "X.npy").X
    assert (first == 1).all()
    assert (second == 2).all()
