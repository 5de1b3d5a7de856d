"""Sphinx's configuration of the documentation site. ``make docs`` builds it."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from generate import fill_in, module_names  # noqa: E402

project = "Distributed GPO"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_use_ivar = True
smartquotes = False  # they would turn --help into a dash


def setup(app):
    """Fill the generated parts into each page before Sphinx parses it."""
    # Autodoc sets ``TYPE_CHECKING`` when it imports a module, and pydantic's models fail with it.
    for package in ("gpo", "actors", "serve"):
        for name in module_names(package):
            import_module(name)
    app.connect("source-read", fill_in)
