"""Settings of the site: `sphinx-build -W -b html docs build/site`."""

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
# The notebook runs in a process of its own, which finds the checkout by this.
os.environ["PYTHONPATH"] = str(ROOT)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import snip_tf  # noqa: E402

project = "snip_tf"
author = "the snip_tf authors"
release = version = snip_tf.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["requirements.txt", "recipes"]
html_theme = "furo"
html_title = "snip_tf"
html_show_sourcelink = False
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# The notebook is run by each build, and an error in it ends the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_in_temp = True

nitpicky = True
# The site is built without a network, so that no other project's index is read.
nitpick_ignore_regex = [("py:exc", ".*"), ("py:class", r"(keras|numpy|matplotlib)\..*")]

# Docstrings have types in words, which read better than annotations.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
maximum_signature_line_length = 80
# `name` in docstrings is code.
default_role = "code"

_DOCTEST = ">>> "
_SECTION = re.compile(r"(Args|Returns|Raises|Attributes|Yields):$")


def _mark_formulas(app, what, name, obj, options, lines):
    """Makes indented paragraphs of a docstring's text (formulas) literal blocks.

    In the docstrings they are merely indented, which reads best in a terminal; here
    they would be quotations, in which `|x|` has a meaning of its own.
    """
    marked, in_section = [], False
    for before, line in zip(["", *lines], lines, strict=False):
        if line and not line.startswith(" "):
            in_section = bool(_SECTION.match(line))
        formula = line.startswith("    ") and not before.strip() and not in_section
        if formula and not line.lstrip().startswith(_DOCTEST):
            marked += ["::", ""]
        marked.append(line)
    lines[:] = marked


def setup(app):
    """Connects the above, before napoleon reads the docstrings."""
    app.connect("autodoc-process-docstring", _mark_formulas, priority=400)
