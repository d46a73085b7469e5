"""A grid search whose networks train together against GridSearchCV: seconds, in one session and in turns.

    python benchmarks/search.py                 # 48 candidates, 5 folds, 2,000 rows of 30 columns: about an hour
    python benchmarks/search.py --quick         # 8 candidates, 3 folds, 600 rows, 8 epochs
    python benchmarks/search.py --jobs 2        # two processes against GridSearchCV(n_jobs=2)

One thread a process. Scores of both are compared, and which candidate is the best. Nothing else should be running.
"""

import argparse
import time

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import AutoEncoder, BatchedGridSearchCV

GRID = {
    "n_components": [2, 5, 10, 20],
    "alpha": [0.03, 0.1, 0.3, 1.0],
    "learning_rate_init": [0.002, 0.004, 0.008],
}
QUICK = {"n_components": [2, 5], "alpha": [0.1, 1.0], "learning_rate_init": [0.003, 0.006]}


def rows(n_rows, n_columns=30, seed=0):
    """Eight coordinates, four of them functions of the others, in a table of many columns with noise."""
    rng = np.random.RandomState(seed)
    t = rng.uniform(-2, 2, (n_rows, 4))
    X = np.hstack([t, np.sin(2 * t)]) @ rng.standard_normal((8, n_columns))
    return X + 0.1 * rng.standard_normal(X.shape)


def seconds(search, X):
    begun = time.perf_counter()
    search.fit(X)
    return time.perf_counter() - begun


def compare(X, grid, cv, batch_size, max_iter, n_jobs):
    """Seconds of either search, the largest difference of their scores, and whether they agree on the best."""
    pipeline = make_pipeline(StandardScaler(), AutoEncoder(batch_size=batch_size, max_iter=max_iter, random_state=0))
    grid = {f"autoencoder__{name}": values for name, values in grid.items()}
    ours, theirs = (search(pipeline, grid, cv=cv, n_jobs=n_jobs) for search in (BatchedGridSearchCV, GridSearchCV))
    taken = seconds(ours, X), seconds(theirs, X)
    scores = [
        np.array([search.cv_results_[f"split{fold}_test_score"] for fold in range(cv)]) for search in (ours, theirs)
    ]
    return *taken, np.abs(scores[0] - scores[1]).max(), ours.best_params_ == theirs.best_params_


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[32])
    parser.add_argument("--epochs", type=int, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    X, grid, cv = (rows(600), QUICK, 3) if arguments.quick else (rows(2000), GRID, 5)
    epochs = arguments.epochs or (8 if arguments.quick else None)
    print("| batch | processes | together, s | GridSearchCV, s | ratio | scores differ by | same best |")
    print("|---|---|---|---|---|---|---|")
    for batch_size in arguments.batches:
        ours, theirs, difference, same = compare(X, grid, cv, batch_size, epochs, arguments.jobs)
        cells = batch_size, arguments.jobs, f"{ours:.1f}", f"{theirs:.1f}", f"{theirs / ours:.2f}", f"{difference:.1e}"
        print("| " + " | ".join(map(str, [*cells, "yes" if same else "no"])) + " |", flush=True)


if __name__ == "__main__":
    main()
