"""What skae costs beside UMAP, a bare forward pass, one process and a bare import: medians of runs in turn.

    python benchmarks/costs.py [--mnist mnist10k.npz] [--runs 5]

Nothing else should be running.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.utils import gen_batches

from skae import AutoEncoder
from skae._rows import ROWS_AT_ONCE


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def in_turn(runs, **functions):
    """Median seconds of each function, called one after the other so that a drift of the machine meets all."""
    times = {name: [] for name in functions}
    for _ in range(runs):
        for name, function in functions.items():
            times[name].append(seconds(function))
    return {name: median(values) for name, values in times.items()}


def fit_against_umap(name, X, runs):
    import umap

    warnings.filterwarnings("ignore", module="umap")
    umap.UMAP().fit(X)  # compiles
    found = in_turn(
        runs,
        skae=lambda: AutoEncoder(random_state=0).fit(X),
        seeded=lambda: umap.UMAP(random_state=0).fit(X),
        parallel=lambda: umap.UMAP().fit(X),
    )
    for kind, what in (("seeded", "with random_state=0 too"), ("parallel", "without a seed, on all threads")):
        print(
            f"| fit with defaults and random_state=0, {name} | {found['skae']:.2f} s "
            f"| UMAP {what}, {found[kind]:.2f} s | {found['skae'] / found[kind]:.2f} |"
        )


def transform_against_forward_pass(runs):
    X = np.random.RandomState(0).standard_normal((100_000, 50)).astype(np.float32)
    model = AutoEncoder(10, max_iter=1, random_state=0).fit(X[:2000])
    wide, narrow = (
        model.module_.encoder,
        AutoEncoder(10, max_iter=1, random_state=0).fit(X[:2000]).module_.encoder.float(),
    )
    X64 = X.astype(np.float64)
    x_wide, x_narrow = torch.from_numpy(X64), torch.from_numpy(X)

    def forward(module, x):
        out = torch.empty(len(x), 10, dtype=x.dtype)
        with torch.inference_mode():  # in the pieces that transform takes, in which a pass takes half the time of one
            for rows in gen_batches(len(x), ROWS_AT_ONCE):
                out[rows] = module(x[rows])

    model.transform(X)
    found = in_turn(
        4 * runs,
        transform=lambda: model.transform(X),
        transform64=lambda: model.transform(X64),
        float64=lambda: forward(wide, x_wide),
        float32=lambda: forward(narrow, x_narrow),
    )
    for of in ("transform", "transform64"):
        dtype = "float64" if of.endswith("64") else "float32"
        for against in ("float64", "float32"):
            ratio = found[of] / found[against]
            print(
                f"| transform of 100,000 x 50 in {dtype} | {1e3 * found[of]:.0f} ms "
                f"| the same pieces through the encoder in {against} {1e3 * found[against]:.0f} ms | {ratio:.2f} |"
            )


def grid_search_in_two_processes(runs):
    X = load_digits().data / 16
    grid = {"n_components": [2, 4, 6, 8, 10, 12], "alpha": [0, 0.1]}

    def search(n_jobs):
        estimator = AutoEncoder(hidden_layer_sizes=(64,), max_iter=20, random_state=0)
        return GridSearchCV(estimator, grid, cv=3, n_jobs=n_jobs, refit=False).fit(X)

    search(2)  # starts the processes
    found = in_turn(max(3, runs // 2), one=lambda: search(1), two=lambda: search(2))
    one, two = found["one"], found["two"]
    print(f"| grid search, two processes | {two:.2f} s | one process {one:.2f} s | gains {one / two:.2f} |")


PEAK = """
import re, sys
import numpy as np
from skae import AutoEncoder

def peak():  # ru_maxrss would inherit that of the parent process
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) / 1024

X = np.load(sys.argv[1])
AutoEncoder(max_iter=1, random_state=0).fit(X[:200])
before = peak()
AutoEncoder(10, max_iter=2, random_state=0).fit(X)
print(peak() - before)
"""


def peak_memory():
    for shape in ((1_000_000, 50), (50_000, 784)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "X.npy"
            np.save(path, np.random.RandomState(0).standard_normal(shape).astype(np.float32))
            ran = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
        copy = 4 * shape[0] * shape[1] / 2**20
        peak, size = float(ran.stdout), f"{shape[0]:,} x {shape[1]}"
        print(f"| peak memory of fit, {size} | {peak:.0f} MiB | float32 X {copy:.0f} MiB | {peak - copy:+.0f} MiB |")


def import_time(runs):
    def starts(code):
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    base = "import torch, sklearn, sklearn.base, sklearn.utils.validation, sklearn.metrics, sklearn.callback"
    found = in_turn(4 * runs, skae=starts(f"{base}, skae"), base=starts(base))
    added = 1e3 * (found["skae"] - found["base"])
    print(f"| import | {found['skae']:.2f} s | torch and scikit-learn {found['base']:.2f} s | adds {added:.0f} ms |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, help="npz with X of 10,000 x 784")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    print("| what | skae | against | ratio |\n|---|---|---|---|")
    fit_against_umap("digits", load_digits().data / 16, arguments.runs)
    if arguments.mnist:
        fit_against_umap("10,000 MNIST digits", np.load(arguments.mnist)["X"] / 255.0, arguments.runs)
    transform_against_forward_pass(arguments.runs)
    grid_search_in_two_processes(arguments.runs)
    peak_memory()
    import_time(arguments.runs)


if __name__ == "__main__":
    main()
