"""skae on an accelerator: epochs recorded as graphs, many networks at once, a large fit, agreement with the processor.

    python benchmarks/accelerator.py [--quick] [--device cuda]

Prints one table with the bar beside each figure. Without an accelerator it says so and ends; with ``--device cpu`` it
runs the same on the processor, which proves the script and nothing else. Matrix products are in float32, without TF32,
unless PyTorch is told otherwise. Nothing else should be running.
"""

import argparse
import math
import os
import platform
import sys
import time
import traceback
import warnings
from statistics import median

import numpy as np
import sklearn
import torch
from sklearn.model_selection import GridSearchCV

import skae
from skae import AutoEncoder
from skae import _training as training
from skae._adam import adam
from skae._losses import squared_error
from skae._networks import AutoEncoderModule
from skae._selection import refit

# Widths from the row to the code, rows of a batch, rows per second to reach.
SMALL, LARGE = ((64, 128, 8), 128, 4e5), ((784, 512, 128, 32), 512, 1.5e6)
BAR_OF_GRAPHS, BAR_OF_A_FIT = 5.0, 5.0
BAR_OF_NETWORKS, BAR_OF_A_GRID = 1.5, 30.0
N_NETWORKS = 100
# Between processor and accelerator, of the R2: after one epoch of a linear network, which is at PCA, and of a whole fit
# with the defaults, in which rows come in another order.
TOLERANCES = {"linear, one epoch": 1e-4, "defaults": 0.01}
STEPS, QUICK_STEPS = 40, 3
# Epochs that are not measured: the loop's first one, that in which the graph is recorded, and one more.
WARM_UP = 3


def simulated(n_rows, n_features, seed=0):
    """Rows near a curved surface of 10 dimensions, standardized as a whole, float32."""
    rng = np.random.RandomState(seed)
    z = rng.standard_normal((n_rows, 10)).astype(np.float32)
    curved = np.tanh(z @ rng.standard_normal((10, 64)).astype(np.float32))
    X = curved @ rng.standard_normal((64, n_features)).astype(np.float32)
    X += 0.1 * rng.standard_normal(X.shape).astype(np.float32)
    return X / X.std()


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def number(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def row(what, figure, unit, bar, at_least=True):
    """A line of the table, with the bar and whether it is met."""
    met = figure >= bar if at_least else figure <= bar
    sign = "at least" if at_least else "at most"
    return f"| {what} | {number(figure)} {unit} | {sign} {number(bar)} {unit} | {'yes' if met else 'no'} |"


def without(what, reason):
    """A line for what was not measured."""
    return f"| {what} | {reason} | | |"


def objective(module, x):
    return squared_error(x, module.decode(module.encode(x)))


def seconds_of_epochs(widths, batch_size, n_steps, device, n_epochs, graphs):
    """Median seconds of an epoch as `fit` makes it on all rows, and whether a graph made it, recorded before."""
    x = torch.from_numpy(simulated(n_steps * batch_size, widths[0])).to(device)
    rows = torch.arange(len(x), device=device)
    torch.manual_seed(0)
    module = AutoEncoderModule(widths[0], widths[-1], widths[1:-1], "silu").to(device)
    pairs, data = [(objective, adam(module, 0.3))], training.Data(x, rows, (training.Fold(rows, rows),))
    schedule = training.Schedule(n_epochs + WARM_UP, 1e-3, lambda n_rows: batch_size, seed=0)
    devices, training.DEVICES = training.DEVICES, training.DEVICES if graphs else set()
    ends = []
    try:
        refit(module, pairs, data, schedule, n_epochs + WARM_UP, lambda network: ends.append(time.perf_counter()))
    finally:
        training.DEVICES = devices
    return median(np.diff(ends[WARM_UP - 1 :])), bool(pairs[0][1].recorded)


def epochs(device, quick):
    """Epochs of 40 steps by graph, and of the small network by the loop too."""
    n_epochs, n_steps = (3, QUICK_STEPS) if quick else (50, STEPS)
    for widths, batch_size, bar in (SMALL, LARGE):
        name = f"{'-'.join(map(str, widths))} at {batch_size} rows"
        options = dict(n_steps=n_steps, device=device, n_epochs=n_epochs)
        graph, recorded = seconds_of_epochs(widths, batch_size, graphs=True, **options)
        if not recorded:
            yield without(f"{name}, by graph", "no graph was recorded: the loop made all epochs")
        elif widths == SMALL[0]:
            loop, _ = seconds_of_epochs(widths, batch_size, graphs=False, **options)
            yield row(f"{name}, graph against the loop", loop / graph, "times as fast", BAR_OF_GRAPHS)
        yield row(f"{name}, training", n_steps * batch_size / graph, "rows/s", bar)


def many_networks(device, quick):
    if not hasattr(skae, "BatchedGridSearchCV"):
        for what in (f"{N_NETWORKS} small networks at once", "a 48 x 5 grid"):
            yield without(what, "not measured: this version has no BatchedGridSearchCV")
        return
    X = simulated(300 if quick else 2000, 20)
    options = dict(hidden_layer_sizes=(32,), max_iter=3 if quick else 50, n_iter_no_change=50, random_state=0)
    rates = np.geomspace(1e-3, 1e-2, N_NETWORKS).tolist()
    halves = [(np.arange(0, len(X), 2), np.arange(1, len(X), 2))]

    def batched(grid, cv):
        return skae.BatchedGridSearchCV(AutoEncoder(4, device=device, **options), grid, cv=cv, refit=False).fit(X)

    batched({"learning_rate_init": rates[:2]}, halves)  # warms up
    one = seconds(lambda: batched({"learning_rate_init": rates[:1]}, halves))
    all_of_them = seconds(lambda: batched({"learning_rate_init": rates}, halves))
    what = f"{N_NETWORKS} small networks at once, against one"
    yield row(what, all_of_them / one, "times as long", BAR_OF_NETWORKS, at_least=False)
    grid = {"learning_rate_init": rates[: 2 if quick else 12], "alpha": [0.0, 0.1, 0.3, 1.0]}
    there = seconds(lambda: batched(grid, 5))
    search = GridSearchCV(AutoEncoder(4, **options), grid, cv=5, refit=False, n_jobs=-1)
    here = seconds(lambda: search.fit(X))
    n_points = math.prod(map(len, grid.values()))
    yield row(f"a {n_points} x 5 grid, against GridSearchCV on all processors", here / there, "times", BAR_OF_A_GRID)


def large_fit(device, quick):
    n_rows = 1000 if quick else 60_000
    X = simulated(n_rows, 784)
    model = AutoEncoder(32, device=device, max_iter=3 if quick else None, random_state=0)
    AutoEncoder(32, device=device, max_iter=2, random_state=0).fit(X[:500])  # starts the device
    what = f"fit of {n_rows:,} x 784, defaults and 32 components"
    yield row(what, seconds(lambda: model.fit(X)), "s", BAR_OF_A_FIT, at_least=False)


def agreement(device, quick):
    X = simulated(400 if quick else 5000, 30).astype(np.float64)
    settings = {
        "linear, one epoch": dict(hidden_layer_sizes=(), max_iter=1),
        "defaults": dict(max_iter=5 if quick else None),
    }
    for name, options in settings.items():
        here, there = (
            AutoEncoder(5, random_state=0, device=place, **options).fit(X).score(X) for place in ("cpu", device)
        )
        what = f"R2 on the processor and on the device, {name}"
        yield row(what, abs(here - there), "apart", TOLERANCES[name], at_least=False)


def description(device):
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{platform.machine()}, a dry run"
    versions = f"torch {torch.__version__}, scikit-learn {sklearn.__version__}, skae {skae.__version__}"
    return f"{name}; {os.cpu_count()} processors; {versions}; matrix products: {torch.get_float32_matmul_precision()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu for a dry run")
    parser.add_argument("--quick", action="store_true", help="small data and few epochs: does it run")
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            "No accelerator: PyTorch finds no CUDA device here, so nothing was measured. Run this where there is one."
        )
        return
    warnings.filterwarnings("ignore", category=sklearn.exceptions.ConvergenceWarning)
    print(description(arguments.device), "\n\n| what | measured | bar | met |\n|---|---|---|---|", sep="", flush=True)
    failed = []
    for measure in (epochs, many_networks, large_fit, agreement):
        try:
            for line in measure(arguments.device, arguments.quick):
                print(line, flush=True)
        except Exception:  # the others are measured all the same: an accelerator may be there for a short time only
            print(without(measure.__name__, "failed"), flush=True)
            failed.append(traceback.format_exc())
    if failed:
        sys.exit("\n" + "\n".join(failed))


if __name__ == "__main__":
    main()
