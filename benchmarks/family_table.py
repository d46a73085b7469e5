"""The table "The family" of results.md: every estimator of skae and PCA on the same data, from a run of quality/.

    benchopt run benchmarks/quality -d "folder[path=DIR]" -o "*[n_components=[10],max_rows=1000]" --output family \\
        -r 3 -s PCA -s "skae[estimator_name=[AutoEncoder,...]]" -s "skae[estimator_name=VAE,prior=[normal,vamp,flow]]"
    python benchmarks/family_table.py benchmarks/quality/outputs/family.parquet

Means over data sets of means over repetitions, held-out rows; the tables of each data set follow.
"""

import sys
from pathlib import Path

from benchopt.benchmark import Benchmark
from benchopt.results import read_results

HERE = Path(__file__).parent
BEGIN, END = "<!-- family: begin -->", "<!-- family: end -->"
SHOWN = {
    "test_r2": "R2",
    "test_trustworthiness_15": "trustworthiness (15)",
    "test_r_nx_area": "R_NX area",
    "test_linear": "linear probe",
    "noisy_shift": "moved by noise",
}


def lines(df):
    from benchmark_utils.summary import tidy

    runs = tidy(df)
    by_set = runs.groupby(["method", "data"])[[*SHOWN, "test_log_likelihood", "fit_seconds"]].mean()
    pca = by_set.loc["PCA"]
    means = by_set.groupby("method").mean()[list(SHOWN)]
    gain = by_set["test_log_likelihood"].unstack("data") - pca["test_log_likelihood"]
    seconds = by_set["fit_seconds"].unstack("data")
    cost = (seconds / seconds.loc["AutoEncoder"]).median(axis=1)
    better = (by_set["test_r2"].unstack("data") > pca["test_r2"]).sum(axis=1)
    n_sets = len(pca)
    yield f"| method | {' | '.join(SHOWN.values())} | R2 above PCA's | nats above pPCA, median | fit, AutoEncoder = 1 |"
    yield "|---" * (len(SHOWN) + 4) + "|"
    for method in means.index:
        cells = [f"{means.loc[method, name]:.3f}" for name in SHOWN]
        cells.append(f"{better[method]} of {n_sets}" if method != "PCA" else "")
        cells.append(f"{gain.loc[method].median():.1f}" if gain.loc[method].notna().any() else "")
        yield f"| {method} | {' | '.join(cells)} | {cost[method]:.2f} |"
    for name, label in {"test_r2": "R2", "test_linear": "linear probe", "test_log_likelihood": "nats a row"}.items():
        table = by_set[name].unstack("data").dropna(how="all")
        yield f"\n**{label}**, held-out rows:\n"
        yield f"| data | {' | '.join(table.index)} |"
        yield "|---" * (len(table) + 1) + "|"
        for data, values in table.items():
            yield f"| {data} | {' | '.join('' if v != v else f'{v:.3f}' for v in values)} |"


def main():
    Benchmark(HERE / "quality")  # makes benchmark_utils importable
    results = HERE / "results.md"
    before, rest = results.read_text(encoding="utf-8").split(BEGIN)
    table = "\n".join(lines(read_results(Path(sys.argv[1]))))
    results.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
