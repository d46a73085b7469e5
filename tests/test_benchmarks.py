"""The scripts under benchmarks/ run, and print what they should."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

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


def test_memory_map(run, tmp_path):
    printed = run("memory_map.py", "--gigabytes", 0.001, "--folder", tmp_path).splitlines()
    assert [line.split(" | ")[:2] for line in printed[2:]] == [["| 4,194", "map"], ["| 4,194", "memory"]]


def test_rows(run, tmp_path, monkeypatch):
    figure = tmp_path / "rows.png"
    printed = run("rows.py", "--most", 10_000, "--folder", tmp_path, "--figure", figure).splitlines()
    assert printed[2].startswith("| 10,000 | memory | ")
    assert printed[-1] == "slope, rows in map: nan"
    assert figure.exists()


@pytest.mark.slow
def test_what_a_fit_is_said_to_need(run):
    """It is less than what it takes, and not by far: the check refuses no fit that could be done."""
    rows = [line.strip("| ").split(" | ") for line in run("rows.py", "--needs").splitlines()[2:]]
    assert len(rows) == 6
    assert all(0.3 < float(row[-1]) < 1 for row in rows)


def test_imputation(run, tmp_path):
    rng = np.random.RandomState(0)
    size = rng.standard_normal(80)
    frame = pd.DataFrame({"size": size, "twice": 2 * size, "word": np.where(size > 0, "a", "b"), "odd": size.round(1)})
    frame.loc[:3, "word"], frame.loc[5:9, "twice"] = None, np.nan
    frame.to_csv(tmp_path / "table.csv", index=False)
    options = ["--file", tmp_path / "table.csv", "--masks", 1]
    printed = run("imputation.py", *options).splitlines()
    cells = {line.split(" | ")[4]: [float(cell) for cell in line.strip("| ").split(" | ")[5:8]] for line in printed[2:]}
    assert len(cells) == 5
    assert np.isfinite(list(cells.values())).all()
    assert cells["AutoEncoderImputer"][2] < 0.5 * cells["mean or mode"][2]
    assert "| table | 80 | " in run("imputation.py", *options, "--calibration")
    assert run("imputation.py", *options, "--reconstruction").count("| FAMD |") == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_accelerator_without_one(run):
    assert run("accelerator.py").startswith("No accelerator: PyTorch finds no CUDA device here")


@pytest.mark.slow
def test_accelerator_as_a_dry_run(run):
    lines = run("accelerator.py", "--device", "cpu", "--quick").splitlines()
    assert "a dry run" in lines[0]
    cells = [line.strip("| ").split(" | ") for line in lines[2:]]
    assert cells[0] == ["what", "measured", "bar", "met"]
    table = {what: rest for what, *rest in cells[2:]}
    assert table["64-128-8 at 128 rows, by graph"][0].startswith("no graph was recorded")
    assert table["784-512-128-32 at 512 rows, training"][1] == "at least 1,500,000 rows/s"
    assert table["R2 on the processor and on the device, defaults"][2] == "yes"
    assert len(table) == 9


def test_search(run):
    header, _, row = run("search.py", "--quick", "--epochs", 2).splitlines()
    cells = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert float(cells["scores differ by"]) < 1e-4
    assert cells["same best |"] == "yes |"
