"""Which schedule, and which rule for epoch and initialization? Curves of R2 on test rows, and all rules read from them.

    python benchmarks/schedules.py --folder DIR --rows 750 --schedule 32,0.005,100,0.1 --schedule 128,0.01,150,0.3

A schedule is rows in a batch, highest learning rate, epochs and weight decay. For both initializations one network is
trained on all rows, one beside a validation set and, with `--folds`, one in each fold; test rows are looked at after
every epoch. Figures are geometric means over sets and splits of the unexplained variance, as a share of that of the
first schedule with the network that its validation set chose and kept.
"""

import argparse
import itertools
import math
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from defaults import geometric_mean, split
from joblib import Parallel, delayed
from pca_fallback import PICTURES, load

from skae._adam import adam
from skae._initialization import Initialization
from skae._losses import squared_error
from skae._networks import AutoEncoderModule
from skae._selection import DROP_ERRORS, FALLBACK_ERRORS, select
from skae._training import WARM_UP, Data, Epoch, Schedule, evaluate, train_alone

SETS = ["breast_cancer", "digits", "adult", "anomaly/fault", "anomaly/letter", "anomaly/landsat", "anomaly/pageblocks"]
SETS += ["covtype10k", "credit_default", "pbmc68k_reduced", "spambase", "usps"]
INITS = ("pca", "random")


def loss(module, x):
    return squared_error(x, module.decode(module.encode(x)))


def curves(name, folder, n_train, k, seed, widths, n_folds, setting):
    """Losses of validation rows after each epoch, R2 of test rows for the networks of all rows, seconds of an epoch."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    batch_rows, rate, n_epochs, decay = setting
    X = load(name, folder)
    X, X_test = split(X, name in PICTURES, min(n_train, len(X) * 3 // 4), seed)
    mean, scale = X.mean(axis=0), math.sqrt(((X - X.mean(axis=0)) ** 2).mean()) or 1.0
    x, test = (torch.from_numpy((rows - mean) / scale).float() for rows in (X, X_test))
    total = float((test - test.mean(0)).double().square().sum()) / len(test)
    data = Data(x, torch.arange(len(x)), ())
    start = Initialization(lambda k: AutoEncoderModule(x.shape[1], k, widths, "silu"), data, k, "pca", seed)
    schedule = Schedule(n_epochs, rate, lambda n: math.ceil(n / math.ceil(n / batch_rows)), seed)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    n_validation = min(max(math.ceil(0.1 * len(x)), 50), len(x) // 3)
    pieces = {"one set": [order[:n_validation]], "folds": order.tensor_split(n_folds) if n_folds else []}
    found = {}
    for init in INITS:
        began = time.process_time()
        found["all", init] = 1 - follow(start.network(init), data.rows, test, data, schedule, decay)[0].mean(1) / total
        found["seconds", init] = (time.process_time() - began) / n_epochs
        for kind, parts in pieces.items():
            runs = []
            for part in parts:
                rows = order[~torch.isin(order, part)]
                runs.append(follow(start.network(init, rows), rows, test, data, schedule, decay, part))
            if runs:
                found[kind, init] = torch.cat([own for _, own in runs], 1)
                found[kind, init, "test"] = 1 - runs[0][0].mean(1) / total
    return found


def follow(network, rows, test, data, schedule, decay, validation=None):
    """Losses of test rows, and of validation rows of data, at the initialization and after each epoch."""
    pairs, of_test, of_validation = [(loss, adam(network, decay))], [], []
    for done in range(schedule.n_epochs + 1):
        of_test.append(evaluate(loss, network, test, torch.arange(len(test))))
        if validation is not None:
            of_validation.append(evaluate(loss, network, data.x, validation))
        if done < schedule.n_epochs:
            train_alone(Epoch(network, pairs, data, rows, schedule, done, 1))
    return torch.stack(of_test), torch.stack(of_validation) if of_validation else None


def chosen(found, kind, patience, n_errors):
    """Initialization and epoch by the losses of validation rows, as skae._selection chooses; epochs that it takes."""
    losses = {init: found[kind, init] for init in INITS}
    n_epochs = len(losses["pca"]) - 1
    ends = dict.fromkeys(INITS, n_epochs)
    if patience:
        for init, values in losses.items():
            means, waited = values.mean(1), 0
            for done in range(1, n_epochs + 1):
                least = means[:done].min()
                waited = 0 if means[done] < least * (1 - 1e-4) else waited + (done > WARM_UP * n_epochs)
                if waited >= patience:
                    ends[init] = done
                    break
    for fifth in range(1, 5) if n_errors is not None else ():
        done = math.ceil(n_epochs / 5) * fifth
        best = {
            init: values[int(values[: min(done, ends[init]) + 1].mean(1).argmin())] for init, values in losses.items()
        }
        leader, other = sorted(INITS, key=lambda init: float(best[init].mean()))
        if ends[other] > done and select([best[other], best[leader]], n_errors) == 1:
            ends[other] = done
    epochs = {init: int(values[: ends[init] + 1].mean(1).argmin()) for init, values in losses.items()}
    init = min(INITS, key=lambda init: float(losses[init][epochs[init]].mean()))
    if select([losses["pca"][0], losses[init][epochs[init]]], FALLBACK_ERRORS) == 0:
        init, epochs["pca"] = "pca", 0
    return init, epochs[init], sum(ends.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rows", type=int, default=750)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--splits", nargs="*", type=int, default=[0])
    parser.add_argument("--schedule", action="append", required=True, metavar="ROWS,RATE,EPOCHS,DECAY")
    parser.add_argument("--widths", nargs="*", type=int, default=[128, 64])
    parser.add_argument("--folds", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    cases = list(itertools.product(arguments.sets, [2, 10], arguments.splits))
    cases = [case for case in cases if case[1] < load(case[0], arguments.folder).shape[1]]
    reference = None
    print("| batch, rate, epochs, decay | kept | refit | refit, patient, dropped | refit by folds | best | seconds |")
    print("|---|---|---|---|---|---|---|")
    for text in arguments.schedule:
        rows, rate, epochs, decay = text.split(",")
        setting = (int(rows), float(rate), int(epochs), float(decay))
        options = (tuple(arguments.widths), arguments.folds, setting)
        tasks = (delayed(curves)(n, arguments.folder, arguments.rows, k, seed, *options) for n, k, seed in cases)
        found = Parallel(arguments.jobs)(tasks)
        patience, columns = setting[2] // 5, {name: [] for name in ("kept", "refit", "short", "folds", "best")}
        seconds = []
        for case in found:
            free = chosen(case, "one set", None, None)
            short = chosen(case, "one set", patience, DROP_ERRORS)
            columns["kept"].append(case["one set", free[0], "test"][free[1]])
            columns["refit"].append(case["all", free[0]][free[1]])
            columns["short"].append(case["all", short[0]][short[1]])
            columns["best"].append(max(case["all", init].max() for init in INITS))
            if arguments.folds:
                by_folds = chosen(case, "folds", patience, DROP_ERRORS)
                columns["folds"].append(case["all", by_folds[0]][by_folds[1]])
            seconds.append((short[1] + short[2]) * (case["seconds", "pca"] + case["seconds", "random"]) / 2)
        unexplained = {name: 1 - np.array(values) for name, values in columns.items()}
        reference = unexplained["kept"] if reference is None else reference
        shares = {n: f"{geometric_mean(v / reference):.3f}" if len(v) else "" for n, v in unexplained.items()}
        print(f"| {text} | " + " | ".join(shares.values()) + f" | {np.mean(seconds):.1f} |", flush=True)


if __name__ == "__main__":
    main()
