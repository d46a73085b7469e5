"""Median rows per second of each solver as a share of skae's, from the parquet files that benchopt wrote.

python benchmarks/speed_table.py [FILE ...]
"""

import sys
from pathlib import Path

import pandas as pd

files = sys.argv[1:] or sorted((Path(__file__).parent / "speed" / "outputs").glob("*.parquet"))
runs = pd.concat(map(pd.read_parquet, files))
runs["network"] = runs["dataset_name"].str.extract(r"network=(\w+)", expand=False)
medians = runs.groupby(["network", "solver_name"])["objective_rows_per_second"].median().unstack(0)
counts = runs.groupby(["network", "solver_name"]).size().min()
print(f"Medians of at least {counts} runs. Rows per second, and how many times faster skae is.\n")
print("| solver | small | middle | large |\n|---|---|---|---|")
for solver, row in medians.sort_values("large").iterrows():
    cells = (
        f"{row[name]:,.0f} ({medians.loc['skae', name] / row[name]:.2f}x)" for name in ("small", "middle", "large")
    )
    print(f"| {solver} |", " | ".join(cells), "|")
