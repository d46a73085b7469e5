"""Figures as SVG and small PNGs, within the page: colours are CSS variables, so that they follow light and dark."""

import base64
import io

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

# Ten colours for classes. They maximize the least distance in OKLab of any two, in normal sight (counted 2 / 3) and
# with protan-, deuter- and tritanopia as simulated by Machado, Oliveira and Fernandes (2009), where all have a contrast
# of at least 3 with the page; a second ten where it is dark.
LIGHT = ["#193aff", "#fd5f1b", "#07364e", "#c058bb", "#989580", "#bc0d18", "#448bff", "#85089a", "#665d6b", "#6b0104"]
DARK = ["#1a9df9", "#efc31e", "#8e00fb", "#4fffb3", "#a54903", "#bac6fc", "#ee00ad", "#177871", "#f98594", "#989305"]
STEPS = 7  # of the scale for a target that is a number
SIDE = 200  # of a map, in units of its viewBox
MOST_POINTS = 30_000  # of all maps together: 10 bytes a point


def look(label):
    """CSS classes of a class of rows: ten colours, every other one square; the second ten have the other shape."""
    return f"c{label % 10}" + (" s" if (label + label // 10) % 2 else "")


def step(labels):
    """The number of the step of the scale on which each target lies."""
    return np.digitize(labels, np.linspace(labels.min(), labels.max(), STEPS + 1)[1:-1])


def scatter(codes, labels, target, title, most_points):
    """Map of (n, 2) codes, both axes on one scale, a path for each colour; the number of a class is at its median."""
    if len(codes) > most_points:
        kept = np.random.RandomState(0).choice(len(codes), most_points, replace=False)
        codes, labels = codes[kept], labels[kept]
    margin, extent = 8, np.ptp(codes, axis=0).max() or 1.0
    middle = (codes.max(axis=0) + codes.min(axis=0)) / 2
    places = np.round((codes - middle) * [1, -1] / extent * (SIDE - 2 * margin) + SIDE / 2).astype(int)
    colours = step(labels) if target == "number" else labels.astype(int)
    parts = []
    for colour in np.unique(colours):
        path = "".join(f"M{x} {y}h0" for x, y in places[colours == colour])
        parts.append(f'<path class="{f"q{colour}" if target == "number" else look(colour)}" d="{path}"/>')
    if target == "classes":
        for colour in np.unique(colours):
            x, y = np.median(places[colours == colour], axis=0).astype(int)
            parts.append(f"<text x={x} y={y + 4}>{colour}</text>")
    box = f"0 0 {SIDE} {SIDE}"
    return Markup(f'<svg viewBox="{box}" role=img class=map><title>{escape(title)}</title>{"".join(parts)}</svg>')


def quality_and_time(points, label):
    """Chart of (method, seconds, quality): time is logarithmic; named and joined: those that none beats in both."""
    width, height, left, low, top = 560, 260, 46, 226, 12
    points = sorted(points, key=lambda point: point[1])
    seconds = np.log10([max(s, 1e-4) for _, s, _ in points])
    start, end = np.floor(seconds.min()), np.ceil(max(seconds.max(), seconds.min() + 0.1))
    worst, best = max(min(q for *_, q in points), -0.2), max(q for *_, q in points)
    span = best - worst or 1

    def place(log_seconds, quality):
        x = left + (log_seconds - start) / (end - start) * (width - left - 130)
        return round(x), round(low - (max(quality, worst) - worst) / span * (low - top - 8))

    parts = [f'<path class=axis d="M{left} {top}V{low}H{width}"/>']
    for power in range(int(start), int(end) + 1):
        parts.append(f"<text class=tick x={place(power, worst)[0]} y={low + 15}>{10.0**power:g}</text>")
    for quality in (worst, (worst + best) / 2, best):
        parts.append(f"<text class=side x={left - 5} y={place(0, quality)[1] + 4}>{quality:.2f}</text>")
    parts.append(f"<text class=tick x={(left + width - 130) // 2} y={height - 4}>fit (s, one thread)</text>")
    front, names, record, above = [], [], -np.inf, height
    for log_seconds, (method, second, quality) in zip(seconds, points, strict=True):
        x, y = place(log_seconds, quality)
        leads = quality > record
        if leads:
            record = quality
            front.append(f"{x} {y}")
            above = min(y, above - 13)  # names climb as quality does and so never meet
            names.append(f"<text x={x + 7} y={above + 4}>{escape(method)}</text>")
        title = f"<title>{escape(method)}: {quality:.3f}, {second:.2g} s</title>"
        parts.append(f'<circle class="{"lead" if leads else "point"}" cx={x} cy={y} r=4>{title}</circle>')
    parts.insert(1, f'<path class=front d="M{"L".join(front)}"/>')
    title = f"<title>{escape(label)} against seconds of the fit; the methods that none beats in both are named</title>"
    return Markup(f'<svg viewBox="0 0 {width} {height}" role=img class=chart>{title}{"".join(parts + names)}</svg>')


def strip(pictures, title):
    """<img> of pictures (n, side * side) in [0, 1] side by side, a pixel a feature."""
    side = round(pictures.shape[1] ** 0.5)
    rows = np.hstack(pictures.reshape(-1, side, side))
    file = io.BytesIO()
    Image.fromarray(np.round(255 * (1 - np.clip(rows, 0, 1))).astype(np.uint8)).save(file, "png", optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    return Markup(f'<img class=strip alt="{escape(title)}" src="data:image/png;base64,{data}">')
