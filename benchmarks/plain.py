"""skae's defaults against plain autoencoders: to what quality in what time.

    python benchmarks/plain.py quality --folder DIR    # seconds to the R2 that a loop, skorch and pyod reach
    python benchmarks/plain.py tuned --folder DIR      # R2 beside networks tuned for each set by cross-validation

One thread. The networks have skae's widths without the linear maps beside them. Common settings are batches of 64 rows,
Adam with a learning rate of 0.001 and 150 epochs. Tuned are widths, weight decay and epochs, by the error of five
folds, in ten times the time of skae's fit; the best is then trained on all rows. Nothing else should be running.
"""

import argparse
import itertools
import time
import warnings
from pathlib import Path
from statistics import median

import numpy as np
import torch
from defaults import geometric_mean, split
from pca_fallback import PICTURES, load
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold
from speed.benchmark_utils import plain_network
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from skae import AutoEncoder

SETS = ["digits", "adult", "anomaly/fault", "anomaly/landsat", "covtype10k", "pendigits", "spambase", "usps"]
WIDTHS, BATCH, EPOCHS, RATE = (128, 64), 64, 150, 1e-3


def r2(test, rebuilt):
    return r2_score(test, rebuilt, multioutput="variance_weighted")


def loop(X, k, epochs=EPOCHS):
    torch.manual_seed(0)
    module = plain_network((X.shape[1], *WIDTHS, k))
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE)
    loader = DataLoader(TensorDataset(torch.from_numpy(X)), batch_size=BATCH, shuffle=True)
    for _ in range(epochs):
        for (x,) in loader:
            optimizer.zero_grad()
            nn.functional.mse_loss(module(x), x).backward()
            optimizer.step()
    return lambda test: module(torch.from_numpy(test)).detach().numpy()


def skorch(X, k):
    from skorch import NeuralNetRegressor

    torch.manual_seed(0)
    network = plain_network((X.shape[1], *WIDTHS, k))
    options = dict(lr=RATE, batch_size=BATCH, max_epochs=EPOCHS, train_split=None, verbose=0)
    model = NeuralNetRegressor(network, optimizer=torch.optim.Adam, iterator_train__shuffle=True, **options).fit(X, X)
    return model.predict


def pyod(X, k):
    from pyod.models.auto_encoder import AutoEncoder as Detector

    layers = [*WIDTHS, k]
    options = dict(hidden_neuron_list=layers, batch_norm=False, dropout_rate=0, device="cpu", verbose=0)
    model = Detector(preprocessing=False, lr=RATE, epoch_num=EPOCHS, batch_size=BATCH, random_state=0, **options).fit(X)
    return lambda test: model.model(torch.from_numpy(test)).detach().numpy()


def timed(function):
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def quality(folder, n_train, k):
    print("| set | skae R2 | skae s |" + "".join(f" {m} R2 | {m} s | of skae's |" for m in ("loop", "skorch", "pyod")))
    print("|---" * 12 + "|")
    ratios = {"loop": [], "skorch": [], "pyod": []}
    for name in SETS:
        X = load(name, folder)
        train, test = split(X, name in PICTURES, min(n_train, len(X) * 3 // 4), 0)
        train, test = train.astype(np.float32), test.astype(np.float32)
        model, seconds = timed(lambda train=train: AutoEncoder(k, random_state=0).fit(train))
        own = r2(test, model.inverse_transform(model.transform(test)))
        line = f"| {name} | {own:.3f} | {seconds:.1f} |"
        for method, fit in (("loop", loop), ("skorch", skorch), ("pyod", pyod)):
            rebuild, others = timed(lambda train=train, fit=fit: fit(train, k))
            found = r2(test, rebuild(test))
            ratios[method].append(others / seconds if own >= found else 0.0)
            line += f" {found:.3f} | {others:.1f} | {others / seconds:.1f}{'' if own >= found else ' (not reached)'} |"
        print(line, flush=True)
    for method, values in ratios.items():
        reached = sum(v > 0 for v in values)
        print(f"{method}: median {median(values):.1f} times as long; its R2 reached on {reached} of {len(values)} sets")


def curves(train, folds, k, widths, decay, epochs, deadline):
    """Mean squared error of each test set after every epoch, and the networks; None once time is over."""
    found = []
    for rows, left_out in folds:
        torch.manual_seed(0)
        module = plain_network((train.shape[1], *widths, k))
        optimizer = torch.optim.AdamW(module.parameters(), lr=RATE, weight_decay=decay, fused=True)
        errors = []
        for _ in range(epochs):
            for batch in rows[torch.randperm(len(rows))].split(BATCH):
                x = train[batch]
                optimizer.zero_grad()
                nn.functional.mse_loss(module(x), x).backward()
                optimizer.step()
            with torch.no_grad():
                x = train[left_out]
                errors.append(float((module(x) - x).square().sum()))
            if time.perf_counter() > deadline:
                return None
        found.append(errors)
    return np.array(found).sum(axis=0), module


def tune(train, k, seconds):
    """The best of networks, tried in random order while the time lasts, trained on all rows."""
    x, rows = torch.from_numpy(train), torch.arange(len(train))
    folds = [tuple(map(torch.from_numpy, f)) for f in KFold(5, shuffle=True, random_state=0).split(train)]
    trials = list(itertools.product([(64,), (128, 64), (256, 128)], [0.0, 0.01, 0.1, 1.0], [400]))
    np.random.RandomState(0).shuffle(trials)
    deadline, best, n_tried = time.perf_counter() + seconds, (np.inf,), 0
    for widths, decay, epochs in trials:
        limit = deadline if n_tried else np.inf
        found = curves(x, folds, k, widths, decay, epochs, limit)
        if found is None:
            break
        n_tried += 1
        errors = found[0]
        best = min(best, (errors.min(), widths, decay, int(errors.argmin()) + 1))
    _, widths, decay, epochs = best
    _, module = curves(x, [(rows, rows[:1])], k, widths, decay, epochs, np.inf)
    return lambda test: module(torch.from_numpy(test)).detach().numpy(), (n_tried, *best[1:])


def tuned(folder, n_train, ks):
    print("| set | rows | k | skae R2 | s | tuned R2 | s | tried | widths | decay | epochs |\n" + "|---" * 11 + "|")
    level, ratios = [], []
    for name, k in itertools.product([*SETS, "breast_cancer", "anomaly/letter", "letter", "credit_default"], ks):
        X = load(name, folder)
        if k >= X.shape[1]:
            continue
        train, test = split(X, name in PICTURES, min(n_train, len(X) * 3 // 4), 0)
        train, test = train.astype(np.float32), test.astype(np.float32)
        model, seconds = timed(lambda train=train, k=k: AutoEncoder(k, random_state=0).fit(train))
        (rebuild, chosen), others = timed(lambda train=train, k=k, s=seconds: tune(train, k, 10 * s))
        own, found = r2(test, model.inverse_transform(model.transform(test))), r2(test, rebuild(test))
        level.append(own >= found - 0.002)
        ratios.append((1 - own) / (1 - found))
        n_tried, widths, decay, epochs = chosen
        print(
            f"| {name} | {len(train)} | {k} | {own:.3f} | {seconds:.1f} | {found:.3f} | {others:.1f} | {n_tried} "
            f"| {'-'.join(map(str, widths))} | {decay} | {epochs} |",
            flush=True,
        )
    share = np.mean(level)
    print(f"at least level in {share:.2f} of {len(level)} cases; unexplained {geometric_mean(ratios):.3f} of theirs")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["quality", "tuned"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--components", nargs="*", type=int, default=[2, 10])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if arguments.what == "quality":
        return quality(arguments.folder, arguments.rows, arguments.components[0])
    return tuned(arguments.folder, arguments.rows, arguments.components)


if __name__ == "__main__":
    main()
