"""How good are maps of two components, against UMAP, t-SNE and PCA? Of rows that were held out, and what they cost.

    python benchmarks/maps.py run --folder DIR --out maps.jsonl --twice [--sets mnist10k digits] [--methods UMAP ...]
    python benchmarks/maps.py table --out maps.jsonl
    python benchmarks/maps.py supervised --folder DIR --sets digits mnist10k

A quarter of the rows is held out, classes in proportion. Tables are standardized on the training rows, pictures divided
by their maximum. Of sets with more than 10,000 rows a sample is taken. Every method is fitted with its defaults and,
for the agreement, again with another seed. What is in the output already is not computed again.

kNN: accuracy of 5 nearest neighbours, training codes to held-out codes. Trustworthiness: among the held-out rows, and
among the training rows, with as many neighbours as scikit-learn's default, 5. Shape: Spearman's correlation of all
distances of held-out rows and the share of triplets in order. Definitions: quality/benchmark_utils/metrics.py.

Beside other processes set OMP_NUM_THREADS=1 and NUMBA_NUM_THREADS=1: numba sets the threads of PyTorch too.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path
from time import perf_counter

import numpy as np
from scipy.stats import rankdata
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NeighborhoodComponentsAnalysis

sys.path.append(str(Path(__file__).parent / "quality"))
from benchmark_utils import metrics
from benchmark_utils.data import check, from_npz

import skae

MOST_ROWS = 10_000
PLACED = 5  # near training rows, among which a new one is placed
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
    return skae.NeighborAutoEncoder(2, transform_neighbors=PLACED, random_state=seed)


METHODS = {
    "PCA": lambda seed, X: PCA(2, random_state=seed),
    "AutoEncoder": lambda seed, X: skae.AutoEncoder(2, random_state=seed),
    "UMAP": umap,
    "t-SNE": tsne,
    "NeighborAutoEncoder": network,
    "NeighborAutoEncoder, placed": placed,
}
# One fit serves for both: training rows that are kept do not change the network.
FITTED_TOGETHER = (
    *([method] for method in METHODS if not method.startswith("NeighborAutoEncoder")),
    ["NeighborAutoEncoder", "NeighborAutoEncoder, placed"],
)


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


def figures(methods, seed, train, test, y_train, y_test, twice):
    """A row of the table for each method: one, or the network alone and with its training rows, which are one fit."""
    model, twin = (METHODS[methods[-1]](s, train) for s in (seed, seed + 1))
    start = perf_counter()
    model.fit(train)
    fit_seconds = perf_counter() - start
    if twice:
        twin.fit(train)
    for method in methods:
        if method.startswith("NeighborAutoEncoder"):
            for fitted in (model, twin):
                fitted.set_params(transform_neighbors=PLACED if method.endswith("placed") else None)
        train_codes = codes_of_training(model, train)
        start = perf_counter()
        codes = np.asarray(model.transform(test))
        transform_seconds = perf_counter() - start
        found = quality(train_codes, codes, train, test, y_train, y_test)
        if isinstance(model, PCA | skae.BaseAutoEncoder):
            found["r2"] = metrics.r2(test, model.inverse_transform(codes))
        if twice:
            found["agreement"] = metrics.agreement(train_codes, codes_of_training(twin, train))
        yield method, found | {"fit": fit_seconds, "transform": transform_seconds / len(test)}


def codes_of_training(model, train):
    return np.asarray(model.embedding_ if hasattr(model, "embedding_") else model.transform(train))


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


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(arguments):
    """Append what is not there yet to the output, a line for each set, method and seed."""
    warnings.simplefilter("ignore")  # of the methods: what matters is in the figures
    names = arguments.sets or [*BUNDLED, *sorted(path.stem for path in Path(arguments.folder or ".").glob("*.npz"))]
    done = {(row["set"], row["method"], row["seed"]) for row in read(arguments.out)}
    for name in names:
        for seed in range(arguments.seeds):
            train, test, y_train, y_test = split(name, arguments.folder, seed, arguments.rows)
            for methods in FITTED_TOGETHER:
                wanted = [m for m in methods if m in (arguments.methods or METHODS) and (name, m, seed) not in done]
                if not wanted:
                    continue
                split_rows = train, test, y_train, y_test
                for method, found in figures(wanted, seed, *split_rows, arguments.twice):
                    row = {"set": name, "method": method, "seed": seed, "rows": len(train), "features": train.shape[1]}
                    with arguments.out.open("a") as file:
                        print(json.dumps(row | found), file=file)
                    print(json.dumps(row | found), flush=True)


def supervised(arguments):
    """Accuracy of 5 nearest neighbours of held-out rows where classes are given: all, and those of 10 rows a class."""
    warnings.simplefilter("ignore")
    print("| set | labels | method | accuracy |\n" + "|---" * 4 + "|")
    for name in arguments.sets or ["digits"]:
        train, test, y_train, y_test = split(name, arguments.folder, 0, arguments.rows)
        order = np.random.RandomState(0).permutation(len(y_train))
        few = np.concatenate([order[y_train[order] == label][:10] for label in np.unique(y_train)])
        partly = np.full(len(y_train), -1)
        partly[few] = y_train[few]
        for labels, y, judged in (("all", y_train, order), ("10 a class", partly, few)):
            for method, make in SUPERVISED.items():
                only = judged if method in ("LDA", "NCA") else slice(None)  # they take no rows without a class
                model = make(len(np.unique(y_train))).fit(train[only], y[only])
                knn = metrics.knn(True).fit(model.transform(train[judged]), y_train[judged])
                print(f"| {name} | {labels} | {method} | {knn.score(model.transform(test), y_test):.3f} |", flush=True)


SUPERVISED = {
    "LDA": lambda n_classes: LinearDiscriminantAnalysis(n_components=min(2, n_classes - 1)),
    "NCA": lambda n_classes: NeighborhoodComponentsAnalysis(2, random_state=0),
    "UMAP": lambda n_classes: umap(0, None),
    "NeighborAutoEncoder": lambda n_classes: network(0, None),
    "NeighborAutoEncoder, placed": lambda n_classes: placed(0, None),
}
COLUMNS = {
    "knn": "kNN",
    "trust5": "trustworthiness",
    "train_trust5": "of training rows",
    "r2": "R2",
    "spearman": "Spearman",
    "triplets": "triplets",
    "agreement": "agreement",
    "fit": "fit, s",
    "transform": "transform, ms a row",
}


def table(arguments):
    """Markdown: means over seeds, and the mean ranks of methods over the sets that all of them have."""
    rows, methods = read(arguments.out), {}
    for row in rows:
        methods.setdefault(row["method"], {}).setdefault((row["set"], row["rows"]), []).append(row)
    means = {
        (method, case): {key: np.mean([row.get(key, np.nan) for row in found]) for key in COLUMNS}
        for method, cases in methods.items()
        for case, found in cases.items()
    }
    print("| set | rows | method | " + " | ".join(COLUMNS.values()) + " |\n" + "|---" * (3 + len(COLUMNS)) + "|")
    for case in dict.fromkeys(case for _, case in means):
        for method in methods:
            if (method, case) in means:
                found = means[method, case] | {"transform": 1000 * means[method, case]["transform"]}
                cells = ["" if np.isnan(value) else f"{value:.3f}" for value in found.values()]
                print(f"| {case[0]} | {case[1]} | {method} | " + " | ".join(cells) + " |")
    shared = [case for case in dict.fromkeys(c for _, c in means) if all((method, case) in means for method in methods)]
    print(f"\n| mean rank over {len(shared)} sets | kNN | trustworthiness |\n|---|---|---|")
    ranks = {
        key: np.mean([rankdata([-means[m, case][key] for m in methods]) for case in shared], axis=0)
        for key in ("knn", "trust5")
    }
    for place, method in enumerate(methods):
        print(f"| {method} | {ranks['knn'][place]:.2f} | {ranks['trust5'][place]:.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table", "supervised"))
    parser.add_argument("--folder", help="of npz files with X and y, beside the sets that scikit-learn ships")
    parser.add_argument("--out", type=Path, default=Path("maps.jsonl"))
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--methods", nargs="*", choices=METHODS)
    parser.add_argument("--rows", type=int, default=MOST_ROWS, help="of larger sets so many are drawn")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--twice", action="store_true", help="fit again with another seed, for the agreement")
    arguments = parser.parse_args()
    {"run": run, "table": table, "supervised": supervised}[arguments.command](arguments)


if __name__ == "__main__":
    main()
