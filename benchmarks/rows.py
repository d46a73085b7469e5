"""Time and memory of a fit by the number of rows, and the memory that a fit is said to need beside what it takes.

    python benchmarks/rows.py [--most 10000000] [--folder DIR] [--figure PATH]
    python benchmarks/rows.py --needs

The rows are those of benchmarks/memory_map.py: 64 columns, float32. AutoEncoder(5) is fitted to 10,000 rows and, by
factors of about three, to more, in memory and in a memory map (of 128 MB or more, as smaller ones are read whole), each
in a process of its own: one epoch of both initializations, with all that comes before and after it. Of fewer than a
million rows the fastest of three fits counts. The slopes are of straight lines through the logarithms of rows and
seconds, without the first point. With --needs, fits of other shapes: the least memory that the check before a fit
counts, and how far resident memory rises. Run it with nothing else, one thread each.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import matplotlib.pyplot as plt
import memory_map
import numpy as np
import torch

from skae import VAE, AutoEncoder
from skae._mapped import LEAST_BYTES

SIZES = [10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000]
# Member, rows, columns and parameters.
FITS = {
    "many rows": (AutoEncoder, 1_000_000, 64, {}),
    "many columns": (AutoEncoder, 2_000, 10_000, {}),
    "wide layers": (AutoEncoder, 2_000, 100, dict(hidden_layer_sizes=(4096, 2048))),
    "wide layers, five folds": (AutoEncoder, 2_000, 100, dict(hidden_layer_sizes=(2048, 1024), cv=5)),
    "large batches": (AutoEncoder, 200_000, 64, dict(batch_size=100_000)),
    "VAE, wide layers": (VAE, 2_000, 100, dict(hidden_layer_sizes=(4096, 2048))),
}


def by_rows(folder, most):
    """Rows of a table: number of rows, "map" or "memory", seconds, MB more in the fit."""
    for n_rows in (size for size in SIZES if size <= most):
        path = Path(folder) / "rows.npy"
        memory_map.write(path, n_rows)
        for where in ("memory", "map"):
            if where == "map" and path.stat().st_size < LEAST_BYTES:
                continue
            fits = [memory_map.measured(path, where, 1) for _ in range(3 if n_rows < 1_000_000 else 1)]
            yield n_rows, where, min(fit[0] for fit in fits), max(fit[1] for fit in fits)


def slope(points):
    """Of seconds by rows, both as logarithms; NaN of fewer than two points."""
    if len(points) < 2:
        return np.nan
    n_rows, seconds = np.log(np.array(points)).T
    return np.polyfit(n_rows, seconds, 1)[0]


def draw(table, path):
    figure, (of_time, of_memory) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for where, marker in (("memory", "o"), ("map", "s")):
        points = np.array([(n, seconds, more) for n, place, seconds, more in table if place == where])
        if len(points):
            of_time.loglog(points[:, 0], points[:, 1], marker=marker, label=f"rows in {where}")
            of_memory.loglog(points[:, 0], points[:, 2].clip(1), marker=marker)
    first, last = table[0], max(n for n, *_ in table)
    of_time.loglog([first[0], last], [first[2], first[2] * last / first[0]], "k:", label="in proportion to the rows")
    of_time.set(xlabel="rows", ylabel="seconds of the fit")
    of_memory.set(xlabel="rows", ylabel="MB more in memory")
    of_time.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def needs(name, shrink):
    """Prints MB that the check counts, and MB by which resident memory rises, of a fit in this process."""
    member, n_rows, n_columns, options = FITS[name]
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    member(2, max_iter=1).fit(rng.random((100, 8)))  # imports and first calls
    X = rng.standard_normal((n_rows // shrink, n_columns), dtype="f4")
    model = member(5, max_iter=1, random_state=0, **options)
    try:
        with patch("skae._memory.available", lambda device: 1), patch("skae._memory.LARGE", 0):
            model.fit(X)
    except MemoryError as error:
        number, unit = re.search(r"at least ([\d,.]+) (GB|MB)", str(error)).groups()
        counted = float(number.replace(",", "")) * (1000 if unit == "GB" else 1)
    peak = memory_map.watch()
    before = memory_map.resident()
    model.fit(X)
    print(counted, peak[0] - before)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=10_000_000, help="number of rows of the last fit")
    parser.add_argument("--folder", default=None, help="where to write the rows; a temporary folder by default")
    parser.add_argument("--figure", default=Path(__file__).parent / "figures" / "rows.png", help="where to draw it")
    parser.add_argument("--needs", nargs="?", const="all", help="what a fit is said to need, in place of the above")
    parser.add_argument("--shrink", type=int, default=1, help="divide the rows of --needs by this")
    options = parser.parse_args()
    if options.needs == "all":
        print("| fit | rows | columns | counted, MB | more resident, MB | share |\n|---|---|---|---|---|---|")
        for name, (_, n_rows, n_columns, _) in FITS.items():
            command = [sys.executable, __file__, "--needs", name, "--shrink", str(options.shrink)]
            found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            counted, taken = map(float, found)
            n_rows //= options.shrink
            print(
                f"| {name} | {n_rows:,} | {n_columns:,} | {counted:,.0f} | {taken:,.0f} | {counted / taken:.2f} |",
                flush=True,
            )
    elif options.needs:
        needs(options.needs, options.shrink)
    else:
        print("| rows | rows in | fit, s | microseconds a row | MB more in fit |\n|---|---|---|---|---|")
        table = []
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            for n_rows, where, seconds, more in by_rows(folder, options.most):
                table.append((n_rows, where, seconds, more))
                each = 1e6 * seconds / n_rows
                print(f"| {n_rows:,} | {where} | {seconds:.2f} | {each:.1f} | {more:.0f} |", flush=True)
        for where in ("memory", "map"):
            points = [(n_rows, seconds) for n_rows, place, seconds, _ in table if place == where]
            print(f"\nslope, rows in {where}: {slope(points[where == 'memory' :]):.3f}")
        draw(table, options.figure)


if __name__ == "__main__":
    main()
