"""The site: `make docs` builds it into docs/build/html."""

import os
import re
import sys
from pathlib import Path

import matplotlib

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent / "_ext")]
matplotlib.use("Agg")

import skae  # noqa: E402  after the path

project, author, copyright = "skae", "The skae developers", "The skae developers"
version = release = skae.__version__

extensions = [
    "mathml",
    "names",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["build", "gallery/**/*.ipynb", "gallery/**/*.py"]
templates_path, html_static_path, html_css_files = ["_templates"], ["_static"], ["skae.css"]
html_extra_path = ["_extra"]  # the page of the quality benchmark
nitpicky = False
toc_object_entries_show_parents = "hide"  # names of methods alone fit beside the page
suppress_warnings = ["config.cache"]  # settings of the gallery that cannot be pickled

myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]

autosummary_generate = True
autodoc_default_options = {"members": True, "inherited-members": True}
numpydoc_show_class_members = False  # the template of a class lists them
numpydoc_xref_param_type = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,  # a page with scripts from elsewhere
    "parallel": int(os.environ.get("SKAE_DOCS_JOBS", 1)),
}

html_math_renderer = "mathml"
html_theme, html_title = "pydata_sphinx_theme", f"skae {release}"
html_context = {"default_mode": "auto"}  # light or dark as the reader's system is
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_show_sourcelink = False
html_sidebars = {page: [] for page in ("index", "start", "which")}  # they have no pages below them
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def with_names_as_text(app, what, name, obj, options, lines):
    """Let `n_components_` in a shape be a name: to reStructuredText a word that ends so is a reference."""
    for place, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(`+[^`]*`+)", line)
            parts[::2] = [re.sub(r"(?<=[a-z])_(?=[,\s)\]:/]|$)", r"\\_", part) for part in parts[::2]]
            lines[place] = "".join(parts)


def is_of_scikit_learn(app, what, name, obj, skip, options):
    """Leave out what estimators have from scikit-learn, whose documentation refers to pages of its own."""
    function = getattr(obj, "fget", None) or obj
    return True if str(getattr(function, "__module__", "")).startswith("sklearn") and name != "fit_transform" else None


def setup(app):
    app.connect("autodoc-process-docstring", with_names_as_text)  # after numpydoc
    app.connect("autodoc-skip-member", is_of_scikit_learn)
