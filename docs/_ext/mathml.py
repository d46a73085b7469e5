"""Equations as MathML, which browsers draw themselves: no script, nothing from elsewhere."""

from docutils import nodes
from latex2mathml.converter import convert


def inline(translator, node):
    translator.body.append(f'<span class="math-inline">{convert(node.astext())}</span>')
    raise nodes.SkipNode


def display(translator, node):
    translator.body.append(f'<div class="math-display">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
