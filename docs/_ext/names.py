"""Public names in code lead to their documentation: the first time on a page, and in every table."""

from docutils import nodes
from sphinx import addnodes

import skae


def above(node, *kinds):
    while node := node.parent:
        if isinstance(node, kinds):
            return True
    return False


def link(app, doctree):
    page, seen = app.env.docname, set()
    if page.startswith("generated/"):
        return
    for literal in list(doctree.findall(nodes.literal)):
        name = literal.astext()
        if name not in skae.__all__ or above(literal, nodes.title, nodes.reference, addnodes.pending_xref):
            continue
        if name not in seen or above(literal, nodes.table):
            seen.add(name)
            link = addnodes.pending_xref(refdomain="py", reftype="obj", reftarget=f"skae.{name}", refdoc=page)
            link["refexplicit"] = False
            literal.replace_self(link)
            link += literal


def setup(app):
    app.connect("doctree-read", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
