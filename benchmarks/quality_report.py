"""One HTML page of a run of benchmarks/quality that needs no network, with the tables and figures of its plots/.

    python benchmarks/quality_report.py [RUN.parquet] [--open] [--results]

Without a file, the newest one under benchmarks/quality/outputs/ is taken. The page lies beside it. With --results
tables and three figures are written into benchmarks/results.md as well, in place of those of the last time.
"""

import argparse
import base64
import html
import io
import re
import webbrowser
from itertools import product
from pathlib import Path

from benchopt.benchmark import Benchmark
from benchopt.results import read_results
from matplotlib.image import imsave

HERE = Path(__file__).parent
QUALITY = HERE / "quality"
ORDER = ("Ranks", "Tables", "Maps", "Pictures", "Quality and time", "Quality and components")
RESULTS = ("test_r2", "test_r_nx_area", "test_spearman", "test_knn", "test_linear", "fit_seconds")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1500px; padding: 0 1em; color: #222 }
.wide { overflow-x: auto } img { max-width: 100% } nav a { margin-right: 1em; white-space: nowrap }
table { border-collapse: collapse; font-size: 13px } td, th { padding: .2em .6em; border-bottom: 1px solid #ddd }
td { text-align: right; white-space: nowrap } td:first-child, th { text-align: left } td:last-child { text-align: left }
summary { cursor: pointer; font-weight: 600; margin: .6em 0 }
"""


def plots(benchmark):
    """The figures of the folder plots/, by name; benchopt brings others of its own."""
    own = {p.name: p for p in benchmark.get_plots() if type(p).__module__.startswith("benchopt_benchmarks.")}
    return {name: own[name] for name in sorted(own, key=lambda name: (*ORDER, name).index(name))}


def figures(plot, df):
    """Yields (selection, title, columns or None, data) for all that a plot can show and has data for."""
    values = {name: list(dict.fromkeys(df[f"{name}_name"])) for name in ("dataset", "objective")}
    values |= {name: given for name, given in plot.options.items() if given is not ...}
    for chosen in product(*(values[name] for name in plot.options)):
        selection = dict(zip(plot.options, chosen, strict=True))
        if data := plot.plot(df, **selection):
            about = plot.get_metadata(df, **selection)
            yield selection, about["title"], about.get("columns"), data


def html_table(rows, columns):
    """Cells written **so** are bold. A column without an entry is left out."""
    keep = [j for j in range(len(columns)) if any(row[j] for row in rows)]
    head = "".join(f"<th>{html.escape(columns[j])}</th>" for j in keep)

    def cell(text):
        bold = re.sub(r"[*]{2}(.*?)[*]{2}", r"<b>\1</b>", html.escape(text))
        return f"<td>{bold}</td>"

    body = "".join(f"<tr>{''.join(cell(row[j]) for j in keep)}</tr>" for row in rows)
    return f"<div class=wide><table><tr>{head}</tr>{body}</table></div>"


def html_picture(image, title):
    """An <img> that holds its PNG."""
    file = io.BytesIO()
    imsave(file, image, format="png")
    return f'<img alt="{html.escape(title)}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def page(df):
    """The report: figures over all data sets, then those of each. Tables of training rows are folded up."""
    parts = {name: [] for name in ["", *dict.fromkeys(df["dataset_name"])]}
    for plot in plots(Benchmark(QUALITY)).values():
        for selection, title, columns, data in figures(plot, df):
            body = html_table(data, columns) if columns else "".join(html_picture(d["image"], title) for d in data)
            folded = "" if selection.get("part") == "training rows" else " open"
            parts[selection.get("dataset", "")].append(
                f"<details{folded}><summary>{html.escape(title)}</summary>{body}</details>"
            )
    links = "".join(f'<a href="#{html.escape(name)}">{html.escape(name)}</a>' for name in parts if name)
    sections = "".join(
        f'<h2 id="{html.escape(name)}">{html.escape(name)}</h2>' * bool(name) + "".join(part)
        for name, part in parts.items()
    )
    return f"""<!doctype html><html lang=en><meta charset=utf-8><title>Dimensionality reduction</title>
<style>{STYLE}</style>
<h1>Dimensionality reduction</h1>
<p>{html.escape(circumstances(df))} ↑ more is better, ↓ less is better; ±: half the 95 % interval over repetitions;
bold: the best, and all whose interval meets the best one's (raw features are no reduction and take no part). An empty
cell is what a method does not offer, or the last column says why not.</p>
<nav>{links}</nav>
{sections}</html>"""


def circumstances(df):
    """Versions and machine, as the runs recorded them."""
    used = "; also ".join(df["objective_versions"].unique())
    machines = ", ".join(f"{cores} cores" for cores in df["system-cpus"].unique()) if "system-cpus" in df else "?"
    return f"{used}; {machines}. Every method was fitted on one thread, other runs beside it."


def markdown(df):
    """Tables of five metrics, data sets by methods, for each number of components; then the figures."""
    from benchmark_utils.summary import ALL_METRICS, best, means, number, tidy

    runs = tidy(df)
    lines = [circumstances(df), ""]
    for k, name in product(sorted(runs["k"].unique()), RESULTS):
        metric, of_k = ALL_METRICS[name], runs[runs["k"] == k]
        methods = sorted(of_k.loc[of_k[name].notna(), "method"].unique())
        where = "held-out rows" if name.startswith("test_") else "training rows"
        better = "more" if metric.better > 0 else "less"
        lines += [f"**{metric.label}** ({metric.unit}; {better} is better), **{k} components**, {where}:", ""]
        lines += [f"| data | {' | '.join(methods)} |", "|---" * (len(methods) + 1) + "|"]
        for data, of_data in of_k.groupby("data"):
            mean, width = means(of_data, [name])
            bold = best(mean, width, {name: metric}, mean.index.drop("raw features", errors="ignore"))[name]
            cells = {m: f"**{number(v)}**" if bold[m] else number(v) for m, v in mean[name].items()}
            cells |= {m: "failed" for m in of_data.loc[of_data["reason"] != "", "method"] if not cells[m]}
            lines.append(f"| {data} | {' | '.join(cells.get(m, '') for m in methods)} |")
        lines.append("")
    return lines


def write_results(df):
    """The block of results.md between its two marks; figures: ranks and time of the middle size, maps of one set."""
    own, lines = plots(Benchmark(QUALITY)), markdown(df)
    sizes = df.groupby("objective_name")["p_obj_n_components"].first().sort_values().index
    pictures = df.loc[df["objective_kind"] == "pictures", "dataset_name"]
    wanted = {
        "objective": sizes[len(sizes) // 2],
        "dataset": (pictures if len(pictures) else df["dataset_name"]).iloc[-1],
    }
    for name in ("Ranks", "Quality and time", "Maps"):
        for selection, title, _, data in figures(own[name], df):
            if selection.items() <= wanted.items():
                path = HERE / "figures" / f"{name.lower().replace(' ', '_')}.png"
                path.parent.mkdir(exist_ok=True)
                imsave(path, data[0]["image"])
                lines += [f"![{title}](figures/{path.name})", "", f"{title}.", ""]
    results = HERE / "results.md"
    begin, end = "<!-- quality: begin -->\n", "<!-- quality: end -->"
    before, rest = results.read_text(encoding="utf-8").split(begin)
    results.write_text(before + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1], encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--open", action="store_true", help="show the page in a browser")
    parser.add_argument("--results", action="store_true", help="write benchmarks/results.md too")
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
    if arguments.open:
        webbrowser.open(out.resolve().as_uri())


if __name__ == "__main__":
    main()
