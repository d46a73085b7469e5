"""The scripts under benchmarks/ run, and print what they should."""

import subprocess
import sys
from pathlib import Path

import numpy as np

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script, *arguments):
    command = [sys.executable, "-W", "error", str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_pca_fallback(tmp_path):
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
