"""Settings of Sphinx; MyST reads the pages (Markdown), numpydoc the docstrings."""

import re

import globidx

project = "globidx"
author = "globidx contributors"
version = release = globidx.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
suppress_warnings = ["config.cache"]

myst_enable_extensions = ["colon_fence"]
# `page.md#some-heading` is a link that GitHub understands as well
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
# Summary tables stand in the pages, written there; stub pages would be files that nobody wrote.
autosummary_generate = False
numpydoc_show_class_members = False
# torch's own members are documented by torch
numpydoc_show_inherited_class_members = False

html_theme = "furo"
html_title = f"globidx {version}"
html_static_path = ["_static"]
html_css_files = ["pairs.css"]
html_copy_source = False
html_show_sourcelink = False


def plural_of_code(*event):
    """``x``s is a plural to a reader, and an error to docutils, which wants a separator behind the code."""
    lines = event[-1]
    # every code is matched, so that what stands between two is not taken for one
    lines[:] = [re.sub(r"(``[^`]+``)", _apart, line) for line in lines]


def _apart(code):
    """A code, and a separator where a letter follows it."""
    return code[1] + ("\\ " if re.match(r"\w", code.string[code.end() :]) else "")


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", plural_of_code)
