"""Files that earlier releases wrote are read by this version, and the models in them give what they gave."""

import pickle
import re
import runpy
from pathlib import Path

import joblib
import numpy as np
import pytest

import skae

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "tests" / "releases").glob("skae-*.joblib"))
write = runpy.run_path(str(ROOT / "tests" / "releases" / "write.py")) if FILES else {}


def test_each_release_has_its_file():
    releases = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert [f"skae-{version}.joblib" for version in sorted(releases)] == [path.name for path in FILES]


def read_pickle(written):
    return pickle.loads(written)


def read_skops(written):
    io = pytest.importorskip("skops.io")
    return io.loads(written, trusted=io.get_untrusted_types(data=written))


# a ConditionalVAE of 0.1.0 has an encoder of scikit-learn within
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning")
@pytest.mark.parametrize("read", [read_pickle, read_skops])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_of_a_release_are_read(path, read):
    contents = joblib.load(path)
    X, kind = contents["X"], read.__name__.removeprefix("read_")
    assert set(contents[kind]) == set(write["MODELS"])
    for name, written in contents[kind].items():
        if name == "ConditionalVAE" and contents["version"] == "0.1.0":
            with pytest.raises(ValueError, match=r"was fitted with skae 0\.1\.0, whose conditions .* Fit it again"):
                read(written)
            continue
        model = read(written)
        assert type(model) is getattr(skae, name)
        for what, result in write["RESULTS"].items():
            if (expected := contents["results"][name][what]) is not None:
                np.testing.assert_allclose(result(model, X), expected, rtol=1e-9, atol=1e-9, err_msg=f"{name}.{what}")
        assert repr(model)  # with the parameters that it has by now
        assert model.get_params().keys() == type(model)().get_params().keys()
        model.partial_fit(X)


@pytest.mark.slow  # PyTorch takes seconds to write a graph
def test_code_of_the_page_runs(tmp_path, monkeypatch):
    pytest.importorskip("skops")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(skae.BaseAutoEncoder, "_max_epochs", lambda model, n_rows: 2)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "persistence.md").read_text(), flags=re.DOTALL):
        exec(compile(block, "persistence.md", "exec"), names)
    assert names
