"""What do the defaults reach on how many rows, and in what time? One version against another, on many data sets.

    python benchmarks/defaults.py --folder DIR --out before.csv --jobs 2    # at one commit
    python benchmarks/defaults.py --folder DIR --out after.csv --jobs 2     # at another
    python benchmarks/defaults.py --table before.csv after.csv

DIR holds npz files as for pca_fallback.py, also in folders; sets of scikit-learn are used besides. Of each set so many
rows train (three quarters, if there are not so many) and up to 3,000 others test; both are scaled by the training rows.
`--set` changes parameters.
"""

import argparse
import ast
import csv
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from pca_fallback import BUNDLED, PICTURES, load, scaled
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score

import skae

TEST_ROWS = 3000


def split(X, picture, n_train, seed):
    """Scaled training and test rows."""
    order = np.random.RandomState(seed).permutation(len(X))
    return scaled(X[order[:n_train]], X[order[n_train:][:TEST_ROWS]], picture)


def measure(name, folder, n_train, n_components, seed, method, parameters):
    """One row of the table: scores on test rows, seconds of the processor."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    train, test = split(load(name, folder), name in PICTURES, n_train, seed)
    pca = PCA(min(n_components, *train.shape), svd_solver="full").fit(train)
    start = time.process_time()
    model = getattr(skae, method)(n_components, random_state=seed, **parameters).fit(train)
    seconds = time.process_time() - start
    if hasattr(model, "elbo"):
        with np.errstate(all="ignore"):
            to_beat = pca.score(test) if pca.n_components_ < min(train.shape) else np.nan
    else:
        to_beat = r2_score(test, pca.inverse_transform(pca.transform(test)), multioutput="variance_weighted")
    row = {"set": name, "rows": n_train, "features": train.shape[1], "components": n_components, "seed": seed}
    results = {"pca": to_beat, "score": model.score(test), "seconds": seconds, "best_iter": model.best_iter_}
    return row | results | {"method": method}


def read(path):
    with open(path) as file:
        rows = [
            {k: v if k in ("set", "method") else float(v or "nan") for k, v in row.items()}
            for row in csv.DictReader(file)
        ]
    return {(row["method"], row["set"], row["rows"], row["components"], row["seed"]): row for row in rows}


def geometric_mean(values):
    return float(np.exp(np.mean(np.log(values))))


def table(before, after):
    """Markdown: a line for each case, means over splits; then a line for each number of rows."""
    before, after = read(before), read(after)
    shared = [key for key in after if key in before]
    cases = {}
    for key in shared:
        cases.setdefault(key[:4], []).append((before[key], after[key]))
    print(
        "| estimator | set | rows | features | k | PCA | before | after | unexplained, of before | least gain on PCA |",
        end="",
    )
    print(" time, of before |\n" + "|---" * 11 + "|")
    lines = []
    for (method, name, rows, k), pairs in cases.items():
        pca, old, new = (np.array([pair[i][c] for pair in pairs]) for i, c in ((1, "pca"), (0, "score"), (1, "score")))
        seconds = geometric_mean([b["seconds"] / a["seconds"] for a, b in pairs])
        ratio = (1 - new).mean() / (1 - old).mean() if method not in ("VAE",) and old.mean() < 1 - 1e-6 else np.nan
        line = dict(method=method, rows=rows, ratio=ratio, change=(new - old).mean(), gain=(new - pca).mean())
        lines.append(line | dict(least=(new - pca).min(), seconds=seconds, name=f"{name} k={k:.0f}"))
        print(
            f"| {method} | {name} | {rows:.0f} | {pairs[0][0]['features']:.0f} | {k:.0f} | {pca.mean():.4f} "
            f"| {old.mean():.4f} | {new.mean():.4f} | {ratio:.3f} | {(new - pca).min():+.4f} | {seconds:.2f} |"
        )
    print()
    for method in dict.fromkeys(line["method"] for line in lines):
        for low, high in ((0, 300), (300, 1000), (1000, 1e9), (0, 1000)):
            some = [line for line in lines if line["method"] == method and low < line["rows"] <= high]
            if not some:
                continue
            ratios = np.array([line["ratio"] for line in some])
            ratios = ratios[np.isfinite(ratios)]
            worst = sorted(some, key=lambda line: line["change"])[:3]
            below = sorted(some, key=lambda line: line["gain"])[:2]
            print(
                f"{method}, {low:.0f} to {high:.0f} rows, {len(some)} cases: unexplained "
                f"{geometric_mean(ratios) if len(ratios) else np.nan:.3f} of before, median change "
                f"{np.median([line['change'] for line in some]):+.4f}, better in "
                f"{np.mean([line['change'] > 0 for line in some]):.2f}; time "
                f"{geometric_mean([line['seconds'] for line in some]):.2f}, at most "
                f"{max(line['seconds'] for line in some):.2f}\n  worst changes: "
                + ", ".join(f"{line['name']} {line['change']:+.4f}" for line in worst)
                + "; gains on PCA: "
                + ", ".join(f"{line['name']} {line['gain']:+.4f}" for line in below)
                + f"; least of one split {min(line['least'] for line in some):+.4f}"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("defaults.csv"))
    parser.add_argument("--table", type=Path, nargs=2, metavar=("BEFORE", "AFTER"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--method", default="AutoEncoder")
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--rows", nargs="*", type=int, default=[250, 750, 3000])
    parser.add_argument("--components", nargs="*", type=int, default=[2, 10])
    parser.add_argument("--splits", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--set", dest="parameters", nargs="*", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    if arguments.table:
        return table(*arguments.table)
    parameters = {
        name: ast.literal_eval(value) for name, value in (pair.split("=", 1) for pair in arguments.parameters)
    }
    names = arguments.sets or [
        *BUNDLED,
        *(
            sorted(str(p.relative_to(arguments.folder).with_suffix("")) for p in arguments.folder.rglob("*.npz"))
            if arguments.folder
            else []
        ),
    ]
    tasks = []
    for name in names:
        n_samples, n_features = load(name, arguments.folder).shape
        for n_train in dict.fromkeys(min(n, n_samples * 3 // 4) for n in arguments.rows):
            for k in dict.fromkeys(min(k, n_features - 1) for k in arguments.components):
                for seed in arguments.splits:
                    tasks.append((name, arguments.folder, n_train, k, seed, arguments.method, parameters))
    tasks.sort(key=lambda task: (task[4], task[2]))  # whole splits first, so that a part of a run can be read
    rows = []
    for row in Parallel(arguments.jobs, return_as="generator")(delayed(measure)(*task) for task in tasks):
        rows.append(row)
        with open(arguments.out, "w", newline="") as file:  # written as they come, to be looked at
            writer = csv.DictWriter(file, row.keys())
            writer.writeheader()
            writer.writerows(rows)
    return None


if __name__ == "__main__":
    main()
