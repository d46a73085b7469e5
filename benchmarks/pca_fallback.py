"""Is skae ever worse than PCA? Against PCA, and against itself from random weights, on many data sets.

    python benchmarks/pca_fallback.py --folder DIR --out fallback.csv --jobs 2
    python benchmarks/pca_fallback.py --table fallback.csv

DIR holds npz files with X (and, for mixed tables, is_categorical); without it only the sets that scikit-learn ships are
used. Columns that are categorical or have missing values are left out. Tables are standardized on the training rows,
pictures divided by their maximum; a quarter of the rows is held out. The script that chose the defaults: `--set`
changes parameters, `--sets` takes a few data sets.
"""

import argparse
import ast
import csv
import time
import warnings
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

import skae

BUNDLED = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "linnerud": datasets.load_linnerud,
    "breast_cancer": datasets.load_breast_cancer,
    "diabetes": datasets.load_diabetes,
    "digits": datasets.load_digits,
}
PICTURES = {"digits", "mnist10k", "usps", "coil20"}
WHOLE = ("letter", "pendigits", "adult")  # also run with all their rows


def load(name, folder):
    """Numeric columns without missing values, float64."""
    if name in BUNDLED:
        return BUNDLED[name]().data.astype(np.float64)
    with np.load(folder / f"{name}.npz") as archive:
        X = archive["X"].astype(np.float64)
        if "is_categorical" in archive:
            X = X[:, ~archive["is_categorical"].astype(bool)]
    return X[:, ~np.isnan(X).any(axis=0)]


def split(name, folder, seed, limit):
    """Scaled training and held-out rows."""
    X = load(name, folder)
    if limit and len(X) > limit:
        X = X[np.random.RandomState(seed).choice(len(X), limit, replace=False)]
    return scaled(*train_test_split(X, test_size=0.25, random_state=seed), name in PICTURES)


def scaled(train, test, pictures):
    """Rows standardized by the training rows, or divided by their maximum."""
    if pictures:
        return train / train.max(), test / train.max()
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation[deviation == 0] = 1
    return (train - mean) / deviation, (test - mean) / deviation


def measure(name, folder, limit, n_components, seed, methods, parameters):
    """One row of the table: scores on held-out rows and fit times in seconds."""
    warnings.simplefilter("ignore")
    train, test = split(name, folder, seed, limit)
    n_axes = min(n_components, *train.shape)
    pca = PCA(n_axes, svd_solver="full").fit(train)
    row = {"set": name if limit else f"{name} (all)", "rows": len(train), "features": train.shape[1]}
    row |= {"components": n_components, "seed": seed}
    row["pca_r2"] = r2_score(test, pca.inverse_transform(pca.transform(test)), multioutput="variance_weighted")
    with np.errstate(all="ignore"):
        row["pca_score"] = pca.score(test) if n_axes < min(train.shape) else np.nan
    for method in methods:
        name, _, init = method.partition("-")
        start = time.perf_counter()
        model = getattr(skae, name)(n_axes, init=init, random_state=seed, **parameters).fit(train)
        row[f"{method}_time"] = time.perf_counter() - start
        row[f"{method}_score"] = model.score(test)
        row[f"{method}_best_iter"] = model.best_iter_
    return row


def table(path):
    """Markdown: per set and number of components, means over seeds and the worst seed; then the bars."""
    with open(path) as file:
        rows = [{k: v if k == "set" else float(v or "nan") for k, v in row.items()} for row in csv.DictReader(file)]
    present = {column.removesuffix("_score") for column in rows[0] if column.endswith("_score")} - {"pca"}
    print("| set | rows | features | k |", end="")
    reconstructs = [m for m in ("AutoEncoder", "DenoisingAutoEncoder") if f"{m}-pca" in present]
    if reconstructs:
        print(
            " PCA R2 |",
            *(f" {m} R2 | unexplained, of PCA's | worst gain on PCA | on random |" for m in reconstructs),
            end="",
        )
    if "VAE-pca" in present:
        print(" pPCA nats | VAE nats | worst gain on pPCA | on random |", end="")
    print()
    ratios, gains = {m: [] for m in reconstructs}, []
    for name, k in dict.fromkeys((row["set"], row["components"]) for row in rows):
        case = [row for row in rows if (row["set"], row["components"]) == (name, k)]

        def values(column, case=case):
            return np.array([row.get(column, np.nan) for row in case])

        line = f"| {name} | {case[0]['rows']:.0f} | {case[0]['features']:.0f} | {k:.0f} |"
        if reconstructs:
            line += f" {values('pca_r2').mean():.3f} |"
        for m in reconstructs:
            r2, pca = values(f"{m}-pca_score"), values("pca_r2")
            if (pca < 1 - 1e-9).all():
                ratios[m].append(((1 - r2) / (1 - pca)).mean())
            on_random = (r2 - values(f"{m}-random_score")).min()
            ratio = f"{ratios[m][-1]:.3f}" if (pca < 1 - 1e-9).all() else "-"
            line += f" {r2.mean():.3f} | {ratio} | {(r2 - pca).min():+.4f} | {on_random:+.4f} |"
        if "VAE-pca" in present:
            score, ppca = values("VAE-pca_score"), values("pca_score")
            gains.append((score - ppca).mean())
            on_random = (score - values("VAE-random_score")).min()
            line += f" {ppca.mean():.2f} | {score.mean():.2f} | {(score - ppca).min():+.3f} | {on_random:+.3f} |"
        print(line)
    for m in reconstructs:
        print(f"\n{m}: median unexplained variance, of PCA's: {np.median(ratios[m]):.3f} in {len(ratios[m])} cases")
    for column in sorted(c for c in rows[0] if c.endswith("_time")):
        print(f"{column}: {sum(row[column] for row in rows):.0f} s in all")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("fallback.csv"))
    parser.add_argument("--table", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit", type=int, default=5000, help="rows of each set; three sets also run whole")
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--components", nargs="*", type=int, default=[2, 10])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--methods", nargs="*", default=["AutoEncoder-pca", "AutoEncoder-random", "VAE-pca", "VAE-random"]
    )
    parser.add_argument("--set", dest="parameters", nargs="*", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    if arguments.table:
        return table(arguments.table)
    parameters = {}
    for pair in arguments.parameters:
        name, value = pair.split("=", 1)
        parameters[name] = ast.literal_eval(value)
    names = arguments.sets or [
        *BUNDLED,
        *(sorted(p.stem for p in arguments.folder.glob("*.npz")) if arguments.folder else []),
    ]
    cases = [(name, arguments.limit) for name in names]
    if not arguments.sets and arguments.folder:
        cases += [(name, None) for name in WHOLE if (arguments.folder / f"{name}.npz").exists()]
    tasks = [
        delayed(measure)(name, arguments.folder, limit, k, seed, arguments.methods, parameters)
        for name, limit in cases
        for k in arguments.components
        for seed in range(arguments.seeds)
    ]
    rows = []
    for row in Parallel(arguments.jobs, return_as="generator")(tasks):  # written as they come, to be looked at
        rows.append(row)
        with open(arguments.out, "w", newline="") as file:
            writer = csv.DictWriter(file, row.keys())
            writer.writeheader()
            writer.writerows(rows)
    return table(arguments.out)


if __name__ == "__main__":
    main()
