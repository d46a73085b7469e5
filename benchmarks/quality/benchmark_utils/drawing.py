"""Colours, and a matplotlib figure as the array of pixels that benchopt's plots of type "image" are made of."""

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmark_utils.summary import ALL_METRICS

# Okabe and Ito 2008, told apart by colour-blind readers, black in place of their yellow, which white paper hides
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"]
MARKERS = "osD^vP*X<>"


def figure(width, height):
    """Size in inches. Not by pyplot: no state, no window."""
    drawn = Figure(figsize=(width, height), layout="constrained", dpi=110)
    FigureCanvasAgg(drawn)
    return drawn


def pixels(drawn):
    """Array (height, width, 3) in [0, 1]."""
    drawn.canvas.draw()
    return np.asarray(drawn.canvas.buffer_rgba())[..., :3] / 255


def styles(methods):
    """Colour and marker of each method, the same in all figures of a run: no two of the first seventy alike."""
    return {method: _style(position) for position, method in enumerate(sorted(set(methods)))}


def _style(position):
    return dict(color=COLOURS[position % len(COLOURS)], marker=MARKERS[position % len(MARKERS)])


def class_colours(n_classes):
    """The colours above while they last, then steps of a map of even lightness steps (cividis)."""
    if n_classes <= len(COLOURS):
        return COLOURS[:n_classes]
    return list(matplotlib.colormaps["cividis"](np.linspace(0, 1, n_classes)))


def panels(runs, shown, look, xlabel):
    """A row of axes, one a metric of the held-out rows, logarithmic in x, and a legend of the methods at their right.

    Yields (metric, axes); each is cut at -0.2 and 1.02, so that one failed method does not flatten the others.
    """
    drawn = figure(4.2 * len(shown) + 3, max(4, 0.24 * len(look)))
    for position, name in enumerate(shown):
        axes = drawn.add_subplot(1, len(shown), position + 1, xscale="log", xlabel=xlabel)
        axes.set_ylabel(f"held out: {ALL_METRICS[name].label} ({ALL_METRICS[name].unit})")
        yield name, axes
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -0.2), min(high, 1.02))
    marks = [Line2D([], [], label=m, **look[m]) for m in sorted(runs["method"].unique())]
    drawn.legend(handles=marks, loc="outside right upper")
