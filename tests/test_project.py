"""The project itself: style, imports that point down, README and examples that run."""

import ast
import importlib
import pickle
import re
import runpy
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
# What each room may import of the others; members, in files of their own, import rooms and no other member.
ROOMS = {
    "_distributed": set(),
    "_rows": set(),
    "_mapped": set(),
    "_columns": set(),
    "_losses": {"_rows"},
    "_adam": set(),
    "_axes": {"_distributed", "_mapped", "_rows"},
    "_layers": {"_axes", "_rows"},
    "_networks": {"_axes", "_layers", "_losses", "_rows"},
    "_graphs": {"_adam"},
    "_training": {"_adam", "_distributed", "_graphs", "_mapped", "_rows"},
    "_progress": {"_distributed", "_mapped", "_rows", "_saving", "_training"},
    "_selection": {"_distributed", "_mapped", "_progress", "_saving", "_training"},
    "_vmapped": set(),
    "_stack": {"_adam", "_training", "_vmapped"},
    "_together": {"_stack", "_training"},
    "_search": {"_together"},
    "_nearest": {"_rows"},
    "_declaration": set(),
    "_saving": set(),
    "_scaling": {"_axes", "_distributed", "_layers", "_mapped", "_rows"},
    "_tables": {"_axes", "_columns", "_layers", "_mapped", "_rows", "_scaling"},
    "_initialization": {"_axes", "_distributed", "_mapped", "_rows", "_training"},
    "_ordering": {"_axes", "_distributed", "_initialization", "_mapped", "_rows", "_training"},
    "_parameters": {"_declaration", "_layers"},
    "_card": set(),
    "_onnx": set(),
    "_fitted": {"_card", "_mapped", "_onnx", "_rows", "_saving", "_tables", "_training"},
    "_data": {"_distributed", "_mapped", "_rows", "_training"},
    "_memory": {"_adam", "_mapped"},
}
ROOMS["_base"] = set(ROOMS) - {"_losses", "_nearest", "_declaration", "_vmapped", "_together", "_search", "_progress"}
ROOMS["_checkpoint"] = {"_base"}
ROOMS["_priors"] = {"_losses", "_rows", "_training"}
ROOMS["_imputation"] = {"_columns", "_losses", "_rows"}
ROOMS["_base_vae"] = {"_base", "_declaration", "_fitted", "_imputation", "_losses", "_networks", "_priors", "_rows"}
ROOMS["_base_vae"] |= {"_scaling"}
ROOMS["_base_vae"] |= {"_distributed", "_mapped"}
ROOMS["_condition"] = {"_columns", "_mapped", "_rows", "_scaling", "_tables"}
ROOMS["_memory_map"] = {"_columns"}
ROOMS["_imputer"] = {"_axes", "_base", "_columns", "_imputation", "_layers", "_parameters", "_tables", "_variational"}
ROOMS["_state_space"] = {"_axes"}
ROOMS["_temporal_network"] = {"_axes", "_layers", "_losses", "_networks", "_rows", "_state_space"}
ROOMS["_temporal_bound"] = {"_losses", "_temporal_network"}
ROOMS["_windows"] = {"_rows"}
TORCH_ONLY = {
    "_adam",
    "_axes",
    "_distributed",
    "_graphs",
    "_layers",
    "_losses",
    "_memory",
    "_nearest",
    "_networks",
    "_ordering",
    "_perceptron",
    "_selection",
    "_training",
    "_initialization",
    "_onnx",
    "_saving",
    "_priors",
    "_progress",
    "_stack",
    "_state_space",
    "_temporal_bound",
    "_temporal_network",
    "_vmapped",
}


def ruff(*arguments):
    found = subprocess.run([sys.executable, "-m", "ruff", *arguments, str(ROOT)], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_lint():
    ruff("check")


def test_format():
    ruff("format", "--check")


@pytest.mark.slow
def test_types_of_the_public_interface():
    pytest.importorskip("mypy")
    found = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "skae").glob("_*.py")), ids=lambda path: path.stem)
def test_imports_point_down(path):
    own, foreign = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            own.add(node.module)
        elif isinstance(node, ast.ImportFrom):
            foreign.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            foreign.update(alias.name.split(".")[0] for alias in node.names)
    if path.stem == "__init__":
        return
    assert own <= ROOMS.get(path.stem, set(ROOMS) - {"_vmapped", "_stack", "_together", "_search"})
    if path.stem in TORCH_ONLY:
        assert "sklearn" not in foreign
    if path.stem in ("_axes", "_graphs", "_layers", "_losses", "_networks", "_selection", "_training"):
        assert "numpy" not in foreign


def code_lines(node, text):
    """Lines of a class or function without documentation, comments and blank lines."""
    documentation = set()
    for part in ast.walk(node):
        if isinstance(part, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(part, clean=False) is not None:
            documentation |= set(range(part.body[0].lineno, part.body[0].end_lineno + 1))
    lines = (text[i - 1].strip() for i in range(node.lineno, node.end_lineno + 1) if i not in documentation)
    return sum(bool(line) and not line.startswith("#") for line in lines)


@pytest.mark.parametrize("path", sorted((ROOT / "skae").glob("*.py")), ids=lambda path: path.stem)
def test_files_and_classes_can_be_read_at_one_sitting(path):
    text = path.read_text().splitlines()
    assert len(text) <= 400
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            assert code_lines(node, text) <= 300, node.name


def test_members_override_few_private_names_of_the_base():
    import skae

    def private(cls):
        return {name for name in vars(cls) if name.startswith("_") and not name.startswith("__")}

    public = [getattr(skae, name) for name in skae.__all__]
    members = [each for each in public if issubclass(each, skae.BaseAutoEncoder) and each is not skae.BaseAutoEncoder]
    classes = {cls for member in members for cls in member.__mro__ if issubclass(cls, skae.BaseAutoEncoder)}
    bases = [skae.BaseAutoEncoder, *skae.BaseAutoEncoder.__mro__[1:3]]  # with the shared parameters, the fitted network
    set_by_the_declaration = {"_declared", "_parameters", "_parameter_constraints"}
    of_the_base = set().union(*map(private, bases)) - set_by_the_declaration
    overridden = set().union(*(private(cls) & of_the_base for cls in classes - {skae.BaseAutoEncoder}))
    overridden = {
        name for name in overridden if not name.startswith("_abc") and name != "_sklearn_auto_wrap_output_keys"
    }
    assert overridden == {
        "_loss",
        "_build_module",
        "_build_scaler",
        "_optimizers",
        "_training_rows",
        "_batch_size",
        "_max_epochs",
        "_check_parameters",
        "_after_fit",
        "_splits",  # of TDVAE, whose rows may share steps
    }


def test_no_text_of_a_parameter_stands_twice():
    from skae._declaration import _entries, _sections

    where = {}
    for path in (ROOT / "skae").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and (doc := ast.get_docstring(node)):
                sections = _sections(doc)
                for title in ("Parameters", "Attributes"):
                    for entry in _entries(sections.get(title, "")).values():
                        text = " ".join(entry.split("\n", 1)[1].split())
                        assert text not in where, f"{text!r} stands in {where.get(text)} and in {path.name}"
                        where[text] = path.name
    assert len(where) > 60


def python_blocks(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL)


# docs/larger_data.md is run by test_engines.py
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md") if path.stem != "larger_data")


@pytest.mark.parametrize("page", ["README.md", *(page for page in PAGES if python_blocks(page))])
def test_code_of_pages_runs(page, capsys, monkeypatch, tmp_path):
    import skae

    monkeypatch.chdir(tmp_path)  # it writes files
    # fits with the default number of epochs would take minutes, and what they print is not looked at
    for member in (skae.BaseAutoEncoder, skae.NeighborAutoEncoder):
        monkeypatch.setattr(member, "_max_epochs", lambda model, n_rows: 2)
    names = {}
    for block in python_blocks(page):
        try:
            exec(compile(block, page, "exec"), names)
        except ModuleNotFoundError as error:
            pytest.skip(f"{page} needs {error.name}")
    plt.close("all")


def test_members_of_ones_own_are_pickled_and_read_again(tmp_path, monkeypatch):
    block = "\n".join(b for b in python_blocks("docs/own_member.md") if "(BaseAutoEncoder)" in b)
    block = re.sub(r"^print\(.*\n", "", block, flags=re.MULTILINE)  # of fits that are made below
    (tmp_path / "own_members.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("own_members")
    members = own.HuberAutoEncoder, own.ConvolutionalAutoEncoder
    models = [member(4, max_iter=8, random_state=0).fit(own.X) for member in members]
    assert all(model.score(own.X) > 0.4 for model in models)
    np.save(tmp_path / "codes.npy", [model.transform(own.X) for model in models])
    (tmp_path / "models.pickle").write_bytes(pickle.dumps(models))
    read = (
        "import pathlib, pickle, numpy as np, own_members\n"
        "models = pickle.loads(pathlib.Path('models.pickle').read_bytes())\n"
        "np.testing.assert_array_equal([m.transform(own_members.X) for m in models], np.load('codes.npy'))\n"
        "for model in models: model.partial_fit(own_members.X)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", read], check=True, cwd=tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("plot_*.py")), ids=lambda path: path.stem)
def test_examples_run(path, tmp_path, monkeypatch, capsys):
    if path.stem == "plot_onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    monkeypatch.setenv("SKAE_EXAMPLES_QUICK", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(path.parent)
    runpy.run_path(str(path), run_name="__main__")
    plt.close("all")
    assert list(tmp_path.glob("*.png"))


def test_version_is_in_the_changelog():
    import skae

    assert f"## {skae.__version__}" in (ROOT / "CHANGELOG.md").read_text()
