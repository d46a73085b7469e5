"""How good are maps of two components, against UMAP, t-SNE and PCA? Of rows that were held out, and what they cost.

    python benchmarks/maps.py run --folder DIR --out maps.jsonl [--sets mnist10k digits] [--methods UMAP ...]
    python benchmarks/maps.py table maps.jsonl

A quarter of the rows is held out, classes in proportion. Tables are standardized on the training rows, pictures divided
by their maximum. Of sets with more than 10,000 rows a sample is taken. Every method is fitted with its defaults and,
for the agreement, again with another seed. What is in the output already is not computed again.

kNN: accuracy of 5 nearest neighbours, training codes to held-out codes. Trustworthiness: among the held-out rows, and
among the training rows, with as many neighbours as scikit-learn's default, 5. Shape: Spearman's correlation of all
distances of held-out rows and the share of triplets in order. Definitions: quality/benchmark_utils/metrics.py.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path
from time import perf_counter

import numpy as np
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

sys.path.append(str(Path(__file__).parent / "quality"))
from benchmark_utils import metrics
from benchmark_utils.data import check, from_npz

import skae

MOST_ROWS = 10_000
BUNDLED = {
    "iris": (datasets.load_iris, "table"),
    "wine": (datasets.load_wine, "table"),
    "breast_cancer": (datasets.load_breast_cancer, "table"),
    "digits": (datasets.load_digits, "pictures"),
}


def umap(seed, X):
    from umap import UMAP

    return UMAP(random_state=seed, n_jobs=1)


def tsne(seed, X):
    from openTSNE.sklearn import TSNE

    return TSNE(perplexity=min(30, (len(X) - 1) / 3), random_state=seed)


def network(seed, X):
    return skae.NeighborAutoEncoder(2, random_state=seed)


def placed(seed, X):
    return skae.NeighborAutoEncoder(2, transform_neighbors=5, random_state=seed)


METHODS = {
    "PCA": lambda seed, X: PCA(2, random_state=seed),
    "AutoEncoder": lambda seed, X: skae.AutoEncoder(2, random_state=seed),
    "UMAP": umap,
    "t-SNE": tsne,
    "NeighborAutoEncoder": network,
    "NeighborAutoEncoder, placed": placed,
}


def split(name, folder, seed, most_rows=MOST_ROWS):
    """Scaled training and held-out rows, and their classes."""
    if name in BUNDLED:
        load, kind = BUNDLED[name]
        X, y = load(return_X_y=True)
        found = check(X, y, kind=kind)
    else:
        found = check(**from_npz(Path(folder) / f"{name}.npz"))
    X, y = found["X"], found["y"]
    if len(X) > most_rows:
        rows = np.random.RandomState(seed).choice(len(X), most_rows, replace=False)
        X, y = X[rows], y[rows]
    stratify = y if found["target"] == "classes" and np.unique(y, return_counts=True)[1].min() > 1 else None
    train, test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=seed, stratify=stratify)
    if found["kind"] == "pictures":
        shift, scale = 0, np.abs(train).max()
    else:
        shift, scale = train.mean(axis=0), train.std(axis=0)
        scale = np.where(scale == 0, 1, scale)
    return (train - shift) / scale, (test - shift) / scale, y_train, y_test


def figures(model, train, test, y_train, y_test):
    """One row of the table."""
    start = perf_counter()
    train_codes = model.fit_transform(train)
    fit_seconds = perf_counter() - start
    start = perf_counter()
    codes = np.asarray(model.transform(test))
    transform_seconds = perf_counter() - start
    found = quality(np.asarray(train_codes), codes, train, test, y_train, y_test)
    if hasattr(model, "score") and hasattr(model, "inverse_transform"):
        found["r2"] = metrics.r2(test, model.inverse_transform(codes))
    return found | {"fit": fit_seconds, "transform": transform_seconds / len(test)}, train_codes


def quality(train_codes, codes, train, test, y_train, y_test):
    knn = metrics.knn(True).fit(train_codes, y_train).score(codes, y_test)
    ranks, code_ranks = metrics.neighbour_ranks(test), metrics.neighbour_ranks(codes)
    distances, code_distances = metrics.pair_distances(test), metrics.pair_distances(codes)
    trust = {f"trust{k}": metrics.trustworthiness(ranks, code_ranks, k) for k in (5, 15)}
    train_ranks = metrics.neighbour_ranks(train), metrics.neighbour_ranks(train_codes)
    return trust | {
        "knn": knn,
        "train_trust5": metrics.trustworthiness(*train_ranks, 5),
        "spearman": metrics.spearman(distances, code_distances),
        "triplets": metrics.triplet_accuracy(distances, code_distances),
    }


def run(arguments):
    warnings.simplefilter("ignore")  # of the methods: what matters is in the figures
    names = arguments.sets or [*BUNDLED, *sorted(path.stem for path in Path(arguments.folder or ".").glob("*.npz"))]
    out = Path(arguments.out)
    done = (
        {(r["set"], r["method"], r["seed"]) for r in map(json.loads, out.read_text().splitlines())}
        if out.exists()
        else set()
    )
    for name in names:
        for seed in range(arguments.seeds):
            train, test, y_train, y_test = split(name, arguments.folder, seed, arguments.rows)
            for method in arguments.methods or METHODS:
                if (name, method, seed) in done:
                    continue
                row, codes = figures(METHODS[method](seed, train), train, test, y_train, y_test)
                if arguments.twice:
                    twin = METHODS[method](seed + 1, train).fit_transform(train)
                    row["agreement"] = metrics.agreement(np.asarray(codes), np.asarray(twin))
                row = {
                    "set": name,
                    "method": method,
                    "seed": seed,
                    "rows": len(train),
                    "features": train.shape[1],
                } | row
                with out.open("a") as file:
                    print(json.dumps(row), file=file)
                print(row, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run")
    runs.add_argument("--folder")
    runs.add_argument("--out", default="maps.jsonl")
    runs.add_argument("--sets", nargs="*")
    runs.add_argument("--methods", nargs="*", choices=METHODS)
    runs.add_argument("--seeds", type=int, default=1)
    runs.add_argument("--rows", type=int, default=MOST_ROWS)
    runs.add_argument("--twice", action="store_true")
    runs.set_defaults(function=run)
    arguments = parser.parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    main()
