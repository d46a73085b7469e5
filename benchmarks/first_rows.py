"""How many first rows of partial_fit should mean, scale and axes follow? Held-out scores after one pass over a stream.

    python benchmarks/first_rows.py --folder DIR
    python benchmarks/first_rows.py --folder DIR --blocks 20

DIR holds npz files as for pca_fallback.py; without it only the sets that scikit-learn ships are used. The rows come in
batches of 100, preceded by nothing ("plain"), by one row ("one row"), or by 100 rows at a thousandth of their scale
("small"). 0 follows the first batch only. The figures are means over sets and seeds: R2 of AutoEncoder, log-likelihood
bounds of VAE as the median gain, in nats a row, on those with the 1000 that were chosen, the time of the whole stream,
and R2 of IncrementalPCA on the stream "plain" for comparison.

With --blocks all rows come in so many blocks, as from Dask: R2 of `fit`, and after one pass over the blocks as a share
of it, with 1, 10, 30 and 100 passes over the first 1000 rows once they are complete.
"""

import argparse
import time
import warnings
from pathlib import Path
from unittest.mock import patch

import numpy as np
from joblib import Parallel, delayed
from pca_fallback import BUNDLED, split
from sklearn.decomposition import IncrementalPCA
from sklearn.metrics import r2_score

import skae
from skae import _base

NUMBERS = (0, 200, 500, 1000, 2000)
STREAMS = ("plain", "one row", "small")
PASSES = (1, 10, 30, 100)
BATCH = 100


def stream(train, kind):
    batches = np.array_split(train, max(1, round(len(train) / BATCH)))
    return {"plain": [], "one row": [train[:1]], "small": [1e-3 * train[:BATCH]]}[kind] + batches


def measure(name, folder, seed, kind):
    """For each number of rows: R2, bound and seconds; then the R2 of IncrementalPCA."""
    warnings.simplefilter("ignore")
    train, test = split(name, folder, seed, limit=5000)
    k = min(10, train.shape[1] // 2)
    figures = []
    for number in NUMBERS:
        scores, start = [], time.perf_counter()
        with patch.object(_base, "FIRST_ROWS", number):
            for member in (skae.AutoEncoder, skae.VAE):
                model = member(k, random_state=seed)
                for batch in stream(train, kind):
                    model.partial_fit(batch)
                scores.append(model.score(test))
        figures.append([*scores, time.perf_counter() - start])
    pca = IncrementalPCA(k)
    for batch in stream(train, "plain"):
        pca.partial_fit(batch)
    return np.array(figures), r2_score(
        test, pca.inverse_transform(pca.transform(test)), multioutput="variance_weighted"
    )


def in_blocks(name, folder, n_blocks):
    """R2 of fit, then of partial_fit over the blocks with each number of passes over the first rows."""
    warnings.simplefilter("ignore")
    train, test = split(name, folder, 0, limit=None)
    k = min(10, train.shape[1] // 2)
    scores = [skae.AutoEncoder(k, random_state=0).fit(train).score(test)]
    for passes in PASSES:
        model = skae.AutoEncoder(k, random_state=0)
        with patch.object(_base, "FIRST_PASSES", passes):
            for block in np.array_split(train, n_blocks):
                model.partial_fit(block)
        scores.append(model.score(test))
    return scores


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--blocks", type=int)
    arguments = parser.parse_args()
    found = [] if arguments.folder is None else sorted(path.stem for path in arguments.folder.glob("*.npz"))
    names = arguments.sets or ["breast_cancer", "digits", *found]
    names = [name for name in names if name in BUNDLED or name in found]
    if arguments.blocks:
        for name in names:
            whole, *parts = in_blocks(name, arguments.folder, arguments.blocks)
            print(f"| {name} | {whole:.3f} | " + " | ".join(f"{part / whole:.3f}" for part in parts) + " |", flush=True)
        return
    for kind in STREAMS:
        cases = [(name, arguments.folder, seed, kind) for name in names for seed in range(arguments.seeds)]
        results = Parallel(arguments.jobs)(delayed(measure)(*case) for case in cases)
        figures = np.array([result[0] for result in results])
        pca = np.mean([result[1] for result in results])
        gains = np.median(figures[..., 1] - figures[:, [NUMBERS.index(1000)], 1], axis=0)
        print(f"| {kind} | " + " | ".join(f"{r2:.3f}" for r2 in figures[..., 0].mean(axis=0)) + f" | {pca:.3f} |")
        print("| VAE, nats | " + " | ".join(f"{gain:+.2f}" for gain in gains) + " | |")
        print("| seconds | " + " | ".join(f"{s:.1f}" for s in figures[..., 2].mean(axis=0)) + " | |", flush=True)


if __name__ == "__main__":
    main()
