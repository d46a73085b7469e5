"""One HTML page of a run of benchmarks/quality that needs no network: which method for which purpose, maps, tables.

    python benchmarks/quality_report.py [RUN.parquet] [--open] [--results] [--site]

Without a file, the newest one under benchmarks/quality/outputs/ is taken. The page lies beside it. With --results the
answers and tables are written into benchmarks/results.md as well, in place of those of the last time; with --site the
page becomes that of the site.
"""

import argparse
import webbrowser
from itertools import product
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from benchopt.benchmark import Benchmark
from benchopt.results import read_results

HERE = Path(__file__).parent
QUALITY = HERE / "quality"
SITE = HERE.parent / "docs" / "_extra" / "quality.html"
Benchmark(QUALITY)  # makes benchmark_utils importable
from benchmark_utils import answers, drawing, metrics, summary  # noqa: E402

RESULTS = ("test_r2", "test_r_nx_area", "test_spearman", "test_knn", "test_linear", "fit_seconds")
FIRST = 6  # maps before the fold, and rebuilt pictures
DEFINED = (
    *(metrics.r2, metrics.mse, metrics.trustworthiness, metrics.continuity, metrics.r_nx, metrics.r_nx_area),
    *(metrics.spearman, metrics.triplet_accuracy, metrics.stress, metrics.knn, metrics.linear, metrics.silhouette),
    *(metrics.cluster_nmi, metrics.code_shift, metrics.agreement),
)


def overview(runs, purpose, k, group="test_"):
    """Methods x data sets of the first metric of a purpose: rows by mean rank, those that lack some after."""
    runs, name = runs[runs["k"] == k], purpose.metric.replace("test_", group)
    table = summary.by_data(runs, name).T
    if table.empty:
        return None
    raw = table.index.intersection(["raw features"])
    ranks, lacking = summary.average_ranks(table.drop(raw).T, name)
    ranks = ranks.mean().sort_values(kind="stable")
    found = answers.answer(runs, purpose, k) if group == "test_" else None
    level = [found.method, *found.ties] if found else []
    order = [*ranks.index, *lacking, *raw]
    width = pd.DataFrame({d: summary.means(of_data, [name])[1][name] for d, of_data in runs.groupby("data")})
    bold = pd.DataFrame(False, index=table.index, columns=table.columns)
    for data in table:
        pair = (frame[[data]].rename(columns={data: name}) for frame in (table, width))
        bold[data] = summary.best(*pair, {name: summary.ALL_METRICS[name]}, table.index.drop(raw))[name]
    rows = [
        dict(
            method=m,
            first=f"{ranks[m]:.1f}" if m in ranks else "",
            level=m in level,
            cells=[(summary.number(table.at[m, d]), bold.at[m, d]) for d in table],
        )
        for m in order
    ]
    return dict(k=k, metric=summary.ALL_METRICS[name], columns=list(table), rows=rows, found=found)


def details(runs, purpose):
    """Methods x metrics of a purpose on one data set: means and half-widths, rows by the first metric."""
    names = [name for name in purpose.metrics if runs[name].notna().any()]
    if not names:
        return None
    mean, width = summary.means(runs, names)
    mean = mean.dropna(how="all").sort_values(names[0], ascending=summary.ALL_METRICS[names[0]].better < 0)
    chosen = {name: summary.ALL_METRICS[name] for name in names}
    bold = summary.best(mean, width.loc[mean.index], chosen, mean.index.drop("raw features", errors="ignore"))

    def cell(method, name):
        spread = f" ± {summary.number(width.at[method, name])}" if width.at[method, name] > 0 else ""
        return summary.number(mean.at[method, name]) + spread, bold.at[method, name]

    rows = [dict(method=m, first="", level=False, cells=[cell(m, name) for name in names]) for m in mean.index]
    return dict(columns=[f"{m.heading} ({m.unit})" for m in chosen.values()], rows=rows)


def sections(runs):
    """For each purpose its tables over data sets, its charts, and those of each data set with all its metrics."""
    for purpose in summary.PURPOSES:
        ks = sorted(runs["k"].unique())
        tables = [overview(runs, purpose, k) for k in ks]
        in_training = [overview(runs, purpose, k, "train_") for k in ks] if purpose.metric.startswith("test_") else []
        kept = runs[runs["method"].isin(best_settings(runs, purpose.metric))]
        of_data = [
            (f"{data}, {k} components", details(rows, purpose))
            for (data, k), rows in kept.groupby(["data", "k"], sort=False)
        ]
        charts = [] if purpose.name != "speed" else [chart(runs, name, k) for k in ks for name in RESULTS[:2]]
        yield dict(
            purpose=purpose,
            metric=summary.ALL_METRICS[purpose.metric],
            tables=[table for table in tables if table],
            training=[table for table in in_training if table],
            of_data=[(title, table) for title, table in of_data if table],
            charts=[c for c in charts if c],
            pictures=list(rebuilt_pictures(runs)) if purpose.name == "rebuild" else [],
        )


def chart(runs, name, k):
    """Quality against time, both means over the data sets that a method has."""
    runs = runs[(runs["k"] == k) & (runs["method"] != "raw features")]
    values, seconds = summary.by_data(runs, name), summary.by_data(runs, "fit_seconds")
    whole = values.dropna(axis=1)
    points = [(m, float(np.exp(np.log(seconds[m]).mean())), whole[m].mean()) for m in whole]
    metric = summary.ALL_METRICS[name]
    label = f"{metric.label}, mean over data sets, {k} components"
    return dict(label=label, svg=drawing.quality_and_time(points, label)) if len(points) > 1 else None


def best_settings(runs, name):
    """One method of each estimator, that of the best mean rank in a metric; the best first."""
    ranks, _ = summary.average_ranks(summary.by_data(runs, name), name)
    order = [*ranks.mean().sort_values(kind="stable").index, *runs["method"].unique()]
    kept = {}
    for method in order:
        kept.setdefault(method.split(" (")[0], method)
    return list(kept.values())


def maps(runs):
    """For each data set: the best method of each solver, then the others, each at its best setting."""
    runs = runs[runs["map"].notna() & (runs["idx_rep"] == 0) & (runs["method"] != "raw features")]
    if runs.empty:
        return
    order = best_settings(runs, "test_r_nx_area")
    runs = runs[runs["method"].isin(order)]
    runs = runs.assign(place=runs["method"].map(order.index)).sort_values("place", kind="stable")
    of_solvers = runs.drop_duplicates("solver")["method"].tolist()
    first = of_solvers[:FIRST]
    if "PCA" in of_solvers and "PCA" not in first:
        first[-1] = "PCA"
    most_points = int(np.clip(drawing.MOST_POINTS / len(runs), 100, 500))
    named = sorted(runs.groupby("data", sort=False), key=lambda pair: (pair[1]["kind"].iloc[0] != "pictures", pair[0]))
    for data, of_data in named:
        drawn = [
            (run["method"], one_map(data, run, most_points), run["map_group"] == "test")
            for _, run in of_data.iterrows()
        ]
        labels, target = of_data["map_labels"].iloc[0], of_data["target"].iloc[0]
        legend = [] if target != "classes" else [(int(c), drawing.look(int(c))) for c in np.unique(labels)]
        yield dict(
            data=data,
            first=[d for d in drawn if d[0] in first],
            others=[d for d in drawn if d[0] not in first],
            target=target,
            legend=legend,
            n=len(of_data[of_data["map_group"] == "test"]["map"].iloc[0]),
            most=most_points,
        )


def one_map(data, run, most_points):
    rows = "held-out rows" if run["map_group"] == "test" else "rows of the fit"
    area = summary.number(run[f"{run['map_group']}_r_nx_area"])
    colours = dict(classes="coloured by class", number="coloured by target", none="")[run["target"]]
    title = f"{run['method']}, {data}: {len(run['map'])} {rows} {colours}; R_NX area {area}"
    labels = run["map_labels"] if run["target"] != "none" else np.zeros(len(run["map"]))
    return drawing.scatter(run["map"], labels, run["target"], title, most_points)


def rebuilt_pictures(runs):
    """(title, [(method, R2, <img>)]) for each data set of pictures and number of components: the best, and PCA."""
    runs = runs[runs["pictures"].notna() & (runs["method"] != "raw features")].sort_values("test_r2", ascending=False)
    runs = runs[runs["method"].isin(best_settings(runs, "test_r2"))]
    for (data, k), of_data in runs.groupby(["data", "k"]):
        originals = of_data.iloc[0]["originals"]
        strips = [("original", "", drawing.strip(originals, f"held-out pictures of {data}"))]
        pca = of_data[of_data["method"] == "PCA"]
        for _, run in pd.concat([of_data[:FIRST], pca]).drop_duplicates("method").iterrows():
            strips.append(
                (
                    run["method"],
                    summary.number(run["test_r2"]),
                    drawing.strip(run["pictures"], f"rebuilt by {run['method']}"),
                )
            )
        yield f"{data}, {k} components", strips


def circumstances(runs):
    """How it was run, as the runs recorded it: label -> text."""
    limits = runs[["p_obj_time_limit", "p_obj_memory_limit", "p_obj_max_rows"]].drop_duplicates().iloc[0]
    splits = runs.groupby("data")["idx_rep"].nunique()
    n_splits = str(splits.max()) if splits.min() == splits.max() else f"{splits.min()} to {splits.max()}"
    facts = {
        "Versions": "; also ".join(runs["versions"].unique()),
        "Machine": "; ".join(machine(row) for _, row in runs.drop_duplicates("system-cpus").iterrows()),
        "Splits": f"{n_splits} of each data set; a quarter of the rows held out, classes in proportion",
        "Limits": f"{limits.iloc[0]} s and {limits.iloc[1]} GB a fit; of more than {limits.iloc[2]:,} rows a sample",
        "Threads": "one a fit, other runs beside it unless run with -j 1",
    }
    if "base_seed" in runs:
        facts["Seed"] = ", ".join(str(seed) for seed in sorted(runs["base_seed"].unique()))
    return facts


def machine(run):
    known = [f"{run['system-cpus']} cores"] + [
        str(run[name]) for name in ("system-processor", "platform") if isinstance(run.get(name), str)
    ]
    return ", ".join(known)


def data_sets(runs):
    columns = ["data", "n_all", "n_train", "n_test", "n_features", "kind", "target", "sampled"]
    return runs.groupby("data", sort=False)[columns].first().to_dict("records")


def page(df):
    runs = summary.tidy(df).rename(columns={"solver_name": "full_name"})
    runs["solver"] = runs["full_name"].str.split("[").str[0]
    defined = [(f.__name__.replace("_", " "), f.__doc__.split("\n\n")[0]) for f in DEFINED]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("quality_report.html").render(
        answers=answers.answers(runs),
        metrics=summary.ALL_METRICS,
        number=summary.number,
        least_sets=answers.LEAST_SETS,
        ks=sorted(runs["k"].unique()),
        n_data=runs["data"].nunique(),
        n_methods=runs["method"].nunique(),
        n_splits=runs["idx_rep"].nunique(),
        maps=list(maps(runs)),
        sections=list(sections(runs)),
        abilities=answers.abilities(runs),
        failures=answers.failures(runs).to_dict("records"),
        left_out=summary.LEFT_OUT,
        circumstances=circumstances(runs),
        data_sets=data_sets(runs),
        defined=defined,
        palette=dict(light=drawing.LIGHT, dark=drawing.DARK),
    )


def markdown(df):
    """The answers, then tables of five metrics, data sets by methods, for each number of components."""
    runs = summary.tidy(df)
    lines = [f"{label}: {text}. " for label, text in circumstances(runs).items()]
    lines += ["", "| purpose | components | take | it has | beside | by | better on | ties |", "|---" * 8 + "|"]
    for a in answers.answers(runs):
        by = f"{a.gain:.1f} times" if a.purpose.is_ratio else f"{a.gain:+.3f}"
        verdict = "cannot be told" if np.isnan(a.p) else f"p = {a.p:.2g}"
        cells = [
            f"{a.purpose.title} ({summary.ALL_METRICS[a.purpose.metric].label})",
            a.k,
            f"**{a.method}**",
            summary.number(a.value),
        ]
        cells += [
            a.other,
            by,
            f"{a.wins} of {a.n} {a.units}, {verdict}",
            ", ".join(a.ties),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines.append("")
    for k, name in product(sorted(runs["k"].unique()), RESULTS):
        metric, of_k = summary.ALL_METRICS[name], runs[runs["k"] == k]
        methods = sorted(of_k.loc[of_k[name].notna(), "method"].unique())
        where = "held-out rows" if name.startswith("test_") else "training rows"
        better = "more" if metric.better > 0 else "less"
        lines += [f"**{metric.label}** ({metric.unit}; {better} is better), **{k} components**, {where}:", ""]
        lines += [f"| data | {' | '.join(methods)} |", "|---" * (len(methods) + 1) + "|"]
        for data, of_data in of_k.groupby("data"):
            mean, width = summary.means(of_data, [name])
            bold = summary.best(mean, width, {name: metric}, mean.index.drop("raw features", errors="ignore"))[name]
            cells = {m: f"**{summary.number(v)}**" if bold[m] else summary.number(v) for m, v in mean[name].items()}
            cells |= {m: "failed" for m in of_data.loc[of_data["reason"] != "", "method"] if not cells[m]}
            lines.append(f"| {data} | {' | '.join(cells.get(m, '') for m in methods)} |")
        lines.append("")
    return lines


def write_results(df):
    """The block of results.md between its two marks."""
    results = HERE / "results.md"
    begin, end = "<!-- quality: begin -->\n", "<!-- quality: end -->"
    before, rest = results.read_text(encoding="utf-8").split(begin)
    text = before + begin + "\n".join(markdown(df)) + "\n" + end + rest.split(end)[1]
    results.write_text(text, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--open", action="store_true", help="show the page in a browser")
    parser.add_argument("--results", action="store_true", help="write benchmarks/results.md too")
    parser.add_argument("--site", action="store_true", help="make the page that of the site")
    arguments = parser.parse_args()
    runs = sorted((QUALITY / "outputs").glob("*.parquet"), key=lambda file: file.stat().st_mtime)
    if arguments.run is None and not runs:
        parser.error("there is no run yet: benchopt run benchmarks/quality")
    path = arguments.run or runs[-1]
    df = read_results(path)
    out = path.with_suffix(".html")
    out.write_text(page(df), encoding="utf-8")
    print(f"wrote {out}")
    if arguments.results:
        write_results(df)
    if arguments.site:
        SITE.write_bytes(out.read_bytes())
    if arguments.open:
        webbrowser.open(out.resolve().as_uri())


if __name__ == "__main__":
    main()
