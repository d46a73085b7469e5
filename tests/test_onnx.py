"""ONNX files compute what the estimator computes: codes of rows, and rows of codes."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from skae import (
    TDVAE,
    VAE,
    VQVAE,
    AdversarialAutoEncoder,
    AutoEncoder,
    BaseAutoEncoder,
    ConditionalVAE,
    ContractiveAutoEncoder,
    DenoisingAutoEncoder,
    SparseAutoEncoder,
)
from skae._onnx import cholesky, cholesky_solve, distances, solve_triangular

QUICK = dict(max_iter=3, random_state=0)


@pytest.fixture
def mixed(table):
    """Numbers, a column of strings and one of booleans: 200 x 5."""
    frame = pd.DataFrame(table[:, :3], columns=["a", "b", "c"])
    frame["kind"] = np.where(table[:, 3] > 1, "high", np.where(table[:, 3] > 0.2, "middle", "low"))
    frame["positive"] = pd.array(table[:, 4] > 0, dtype="boolean")
    return frame


def with_holes(X):
    holes = np.random.RandomState(0).rand(*X.shape) < 0.2
    return X.mask(holes) if hasattr(X, "mask") else np.where(holes, np.nan, X)


def run(path, **inputs):
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    return session.run(None, inputs)[0]


def onnx_codes(model, path, rows):
    pytest.importorskip("onnxscript")
    model.to_onnx(path)
    return run(path, X=rows)


def relative(found, expected):
    """Largest difference in units of the spread of what is expected, NaN where it is."""
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    return np.nanmax(np.abs(found - expected)) / np.nanstd(expected)


def check(model, X, folder):
    """Both graphs against the estimator, on the float32 numbers that they see."""
    rows = model._validate(X).astype(np.float32)
    expected = model._map(rows.astype(np.float64), model._encode, model.n_components_)
    codes = onnx_codes(model, folder / "encoder.onnx", rows)
    assert codes.dtype == np.float32
    assert relative(codes, expected) < 1e-5
    np.testing.assert_allclose(run(folder / "encoder.onnx", X=rows[:1]), codes[:1], atol=1e-5 * expected.std())
    model.to_onnx(folder / "decoder.onnx", method="inverse_transform")
    inputs, seen = {"codes": codes}, codes.astype(np.float64)
    if len(getattr(model, "condition_indices_", ())):
        inputs["condition"] = rows[:, model.condition_indices_]
        seen = model._beside(seen, inputs["condition"].astype(np.float64))
    decoded = model._map(seen, model._decode, model.n_features_in_)
    if "condition" in inputs:
        decoded[:, model.condition_indices_] = inputs["condition"]
    assert relative(run(folder / "decoder.onnx", **inputs), decoded) < 1e-5


@pytest.mark.slow
def test_codes_of_numbers(table, tmp_path):
    X = (table + 1000).astype(np.float32)  # in float32 a mean that is far away would cost three digits
    model = AutoEncoder(2, **QUICK).fit(X)
    codes = onnx_codes(model, tmp_path / "encoder.onnx", X)
    assert relative(codes, model.transform(X)) < 1e-5
    assert np.isnan(run(tmp_path / "encoder.onnx", X=np.full_like(X[:2], np.nan))).all()  # not an invented code


def test_a_file_says_what_it_takes(mixed, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    model = AutoEncoder(2, hidden_layer_sizes=8, **QUICK).fit(mixed)
    rows = model._validate(mixed).astype(np.float32)
    codes = onnx_codes(model, tmp_path / "encoder.onnx", rows)
    assert relative(codes, model.transform(mixed)) < 1e-5
    np.testing.assert_allclose(run(tmp_path / "encoder.onnx", X=rows[:1]), codes[:1], atol=1e-5)
    written = onnx.load(tmp_path / "encoder.onnx")
    assert [(each.domain, each.version) for each in written.opset_import] == [("", 18)]
    shapes = {each.name: each.type.tensor_type.shape.dim for each in (*written.graph.input, *written.graph.output)}
    assert {name: (dim[0].dim_param, dim[1].dim_value) for name, dim in shapes.items()} == {
        "X": ("n_samples", 5),
        "codes": ("n_samples", 2),
    }
    columns = json.loads({each.key: each.value for each in written.metadata_props}["columns"])
    assert columns[0] == {"name": "a", "categories": None}
    assert columns[3] == {"name": "kind", "categories": ["high", "low", "middle"]}
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.onnx"]


MODELS = {
    "autoencoder": AutoEncoder(3, **QUICK),
    "random": AutoEncoder(3, activation="gelu", init="random", **QUICK),
    "denoising": DenoisingAutoEncoder(3, **QUICK),
    "contractive": ContractiveAutoEncoder(3, **QUICK),
    "top_k": SparseAutoEncoder(12, n_active=3, **QUICK),
    "l1": SparseAutoEncoder(12, penalty="l1", **QUICK),
    "kl": SparseAutoEncoder(12, penalty="kl", **QUICK),
    "vae": VAE(3, activation="tanh", **QUICK),
    "conditional": ConditionalVAE(3, condition_features=[4], **QUICK),
    "adversarial": AdversarialAutoEncoder(3, **QUICK),
    "windows": TDVAE(3, n_channels=2, **QUICK),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_member(name, table, tmp_path):
    check(MODELS[name].fit(table), table, tmp_path)


@pytest.mark.slow
def test_discrete_codes_and_probabilities(digits, tmp_path):
    X = digits[:500]
    check(VAE(3, likelihood="bernoulli", **QUICK).fit(X), X, tmp_path)
    model = VQVAE(8, n_codebooks=2, **QUICK).fit(X)
    codes = onnx_codes(model, tmp_path / "encoder.onnx", X.astype(np.float32))
    # the nearest code is another one only where two are as near
    assert (np.abs(codes - model.transform(X)).max(axis=1) > 1e-5).sum() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("member", [AutoEncoder, VAE, VQVAE])
@pytest.mark.parametrize("holes", [False, True])
def test_tables(member, holes, mixed, tmp_path):
    X = with_holes(mixed) if holes else mixed
    check(member(2, **QUICK).fit(X), X, tmp_path)


@pytest.mark.slow
def test_missing_cells(table, tmp_path):
    X = with_holes(table)
    check(VAE(3, activation="gelu", **QUICK).fit(X), X, tmp_path)


@pytest.mark.slow
def test_missing_cells_beside_a_condition(mixed, tmp_path):
    X = with_holes(mixed)
    check(ConditionalVAE(2, condition_features=["kind", "a"], **QUICK).fit(X), X, tmp_path)


@pytest.mark.slow
def test_windows_with_gaps(table, tmp_path):
    X = with_holes(table)
    model = TDVAE(2, activation="gelu", **QUICK).fit(X)
    assert model.module_.fills
    with torch.no_grad():
        model.module_.head.weight.normal_()  # the fit may have kept the linear model, in which no gate counts
    check(model, X, tmp_path)


def test_elementary_functions_are_those_of_torch():
    torch.manual_seed(0)
    a = torch.randn(7, 5, 5, dtype=torch.float64)
    a = a @ a.mT + torch.eye(5)
    b, factor = torch.randn(7, 5, 1, dtype=torch.float64), torch.linalg.cholesky(a)
    torch.testing.assert_close(cholesky(a), factor)
    torch.testing.assert_close(cholesky_solve(b, factor), torch.cholesky_solve(b, factor))
    for upper, triangular in ((False, factor), (True, factor.mT)):
        expected = torch.linalg.solve_triangular(triangular, b, upper=upper)
        torch.testing.assert_close(solve_triangular(triangular, b, upper=upper), expected)
    rows, others = torch.randn(2, 6, 3), torch.randn(2, 4, 3)
    torch.testing.assert_close(distances(rows, others), torch.cdist(rows, others))


class HasNoGraph(nn.Module):
    def __init__(self, n_features, n_components):
        super().__init__()
        self.first, self.second = nn.Linear(n_features, n_components), nn.Linear(n_components, n_features)

    def encode(self, x):
        return self.first(x) if float(x.sum()) > 0 else -self.first(x)

    def decode(self, z):
        return self.second(z)


class OwnAutoEncoder(BaseAutoEncoder):
    init = "random"

    def _loss(self, module, x):
        return (x - module.decode(module.encode(x))).square().sum(-1)

    def _build_module(self, n_features, n_components, scale):
        return HasNoGraph(n_features, n_components)


def test_errors(table, tmp_path, monkeypatch):
    path = tmp_path / "encoder.onnx"
    with pytest.raises(NotFittedError):
        AutoEncoder(2).to_onnx(path)
    model = AutoEncoder(2, **QUICK).fit(table)
    with pytest.raises(ValueError, match="The 'method' parameter must be a str among"):
        model.to_onnx(path, method="predict")
    with monkeypatch.context() as patch, pytest.raises(ImportError, match="pip install onnxscript"):
        patch.setitem(__import__("sys").modules, "onnxscript", None)
        model.to_onnx(path)
    assert not path.exists()


@pytest.mark.slow
def test_a_network_without_a_graph(table, tmp_path):
    pytest.importorskip("onnxscript")
    path = tmp_path / "encoder.onnx"
    own = OwnAutoEncoder(2, **QUICK).fit(table)
    with pytest.raises(ValueError, match=r"The network of OwnAutoEncoder cannot be written as ONNX: .+"):
        own.to_onnx(path)
    assert not path.exists()
