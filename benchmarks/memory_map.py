"""What a memory map costs: how far resident memory rises, and the time of an epoch beside that of rows in memory.

    python benchmarks/memory_map.py [--gigabytes 4] [--epochs 1] [--folder DIR]

The rows are simulated: 64 columns, float32, a curved manifold of 5 dimensions with noise. They are written to DIR,
fitted by AutoEncoder(5), scored and transformed into another map, each in a process of its own; then the same rows are
fitted in memory. Run it with nothing else, one thread each.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from skae import AutoEncoder

N_COLUMNS, AT_ONCE = 64, 100_000


def write(path, n_rows):
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((5, N_COLUMNS), dtype="f4")
    X = np.lib.format.open_memmap(path, mode="w+", dtype="f4", shape=(n_rows, N_COLUMNS))
    for start in range(0, n_rows, AT_ONCE):
        z = rng.standard_normal((min(AT_ONCE, n_rows - start), 5), dtype="f4")
        noise = rng.standard_normal((len(z), N_COLUMNS), dtype="f4")
        X[start : start + AT_ONCE] = np.tanh(z) @ directions + 0.3 * noise
    X.flush()


def resident():
    """Resident memory of this process, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def watch():
    """A list whose only number is the most resident memory of this process from now on, in MB."""
    peak = [0.0]

    def look():
        while True:
            peak[0] = max(peak[0], resident())
            time.sleep(0.01)

    threading.Thread(target=look, daemon=True).start()
    return peak


def measure(path, in_memory, n_epochs):
    """Fit in this process; prints seconds of the fit and by how many MB memory rose, in fit and in all."""
    torch.set_num_threads(1)
    AutoEncoder(2, max_iter=1).fit(np.random.default_rng(0).random((100, N_COLUMNS)))  # imports and first calls
    X = np.load(path, mmap_mode=None if in_memory else "r")
    before, peak = resident(), watch()
    begun = time.perf_counter()
    model = AutoEncoder(5, max_iter=n_epochs, random_state=0).fit(X)
    seconds, of_fit = time.perf_counter() - begun, peak[0] - before
    if not in_memory:
        model.score(X)
        out = np.lib.format.open_memmap(f"{path}.codes", mode="w+", dtype="f4", shape=(len(X), 5))
        model.transform(X, out=out)
    print(seconds, of_fit, peak[0] - before)


def measured(path, where, n_epochs):
    """Seconds of the fit and MB more in fit and in all, measured in a process of its own; where: "map" or "memory"."""
    command = [sys.executable, __file__, "--epochs", str(n_epochs), "--measure", str(path), where]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return [float(number) for number in found]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--folder", default=None, help="where to write the rows; a temporary folder by default")
    parser.add_argument("--measure", nargs=2, metavar=("PATH", "WHERE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        path, where = options.measure
        measure(path, where == "memory", options.epochs)
        return
    n_rows = int(options.gigabytes * 2**30 / (4 * N_COLUMNS))
    print("| rows | rows in | fit, s | MB more in fit | MB more in fit, score and transform |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "rows.npy"
        write(path, n_rows)
        for where in ("map", "memory"):
            seconds, of_fit, of_all = measured(path, where, options.epochs)
            more = f"{of_all:.0f}" if where == "map" else "-"
            print(f"| {n_rows:,} | {where} | {seconds:.1f} | {of_fit:.0f} | {more} |", flush=True)


if __name__ == "__main__":
    main()
