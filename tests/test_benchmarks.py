"""The scripts under benchmarks/ run, and print what they should."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a script as the command line would, in this process; what it prints."""

    def call(script, *arguments):
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        monkeypatch.syspath_prepend(BENCHMARKS)
        runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
        return capsys.readouterr().out

    return call


def test_first_rows(run):
    printed = run("first_rows.py", "--sets", "breast_cancer", "--seeds", 1, "--jobs", 1)
    assert [line.split(" | ")[0] for line in printed.splitlines()] == [
        f"| {name}" for kind in ("plain", "one row", "small") for name in (kind, "VAE, nats", "seconds")
    ]
    plain = [float(cell) for cell in printed.splitlines()[0].split("|")[2:-1]]
    assert min(plain) > 0.8


def test_pca_fallback(run, tmp_path):
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.standard_normal((300, 4)), np.full(300, np.nan), rng.randint(3, size=300)])
    is_categorical = [False] * 5 + [True]
    np.savez(tmp_path / "mixed.npz", X=X, is_categorical=is_categorical)
    out = tmp_path / "fallback.csv"
    options = ["--folder", tmp_path, "--out", out, "--sets", "iris", "mixed", "--seeds", 1, "--components", 2]
    printed = run("pca_fallback.py", *options, "--limit", 200, "--set", "max_iter=2")
    assert "| iris | 112 | 4 | 2 |" in printed
    assert "| mixed | 150 | 4 | 2 |" in printed  # without the column of missing values and the categorical one
    assert "median unexplained variance" in printed
    assert run("pca_fallback.py", "--table", out) == printed
