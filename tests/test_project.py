"""The project itself: style, imports that point down, README and examples that run."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOWER = {"_losses": set(), "_networks": set(), "_training": set(), "_base": {"_networks", "_training"}}
LOWER["_base_vae"] = {"_base", "_losses", "_networks"}


def ruff(*arguments):
    found = subprocess.run([sys.executable, "-m", "ruff", *arguments, str(ROOT)], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_lint():
    ruff("check")


def test_format():
    ruff("format", "--check")


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
    # a member, in a file of its own, imports what is below and no other member
    allowed = LOWER.get(path.stem, set(LOWER))
    assert own <= allowed
    if path.stem in ("_losses", "_networks", "_training"):
        assert "sklearn" not in foreign
        assert "numpy" not in foreign


def python_blocks(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL)


def test_readme_code_runs(capsys):
    blocks = python_blocks("README.md")
    assert blocks
    names = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("plot_*.py")), ids=lambda path: path.stem)
def test_examples_run(path, tmp_path):
    environment = {**os.environ, "SKAE_EXAMPLES_QUICK": "1", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-W", "error", str(path)], check=True, cwd=tmp_path, env=environment)
    assert list(tmp_path.glob("*.png"))


def test_version_is_in_the_changelog():
    import skae

    assert f"## {skae.__version__}" in (ROOT / "CHANGELOG.md").read_text()
