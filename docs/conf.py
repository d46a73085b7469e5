"""The site: pages in Markdown, the interface from the docstrings, the gallery from ../examples, all without network."""

import os
from pathlib import Path

# Figures are drawn by examples in processes of one thread each, as fits of small networks are fastest.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import skae

ROOT = Path(__file__).parents[1]

project, author = "skae", "the skae developers"
version = release = skae.__version__
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "sg_execution_times.rst"]
# searches are documented by scikit-learn, with terms of its glossary, which is not here
suppress_warnings = ["ref.term"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp, .go"

autosummary_generate = True
autodoc_inherit_docstrings = True
numpydoc_show_class_members = True
numpydoc_show_inherited_class_members = True
numpydoc_class_members_toctree = False
numpydoc_use_plots = False

sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": r"plot_",
    "doc_module": ("skae",),
    "backreferences_dir": "generated/backreferences",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_signature": False,
    "parallel": int(os.environ.get("SKAE_DOCS_PROCESSES", "2")),
}

html_theme = "pydata_sphinx_theme"
html_title = "skae"
html_sidebars = {page: [] for page in ("index", "start", "which")}  # they have no pages below them
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
project_copyright = "the skae developers, BSD 3-clause"
