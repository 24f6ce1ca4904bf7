"""Settings of the site: `sphinx-build -W -b html docs build/site`."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]
# The notebook runs in a separate process, which finds the checkout by this.
os.environ["PYTHONPATH"] = str(ROOT)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sphinx_extension  # noqa: E402

import snip_tf  # noqa: E402

project = "snip_tf"
author = "the snip_tf authors"
release = version = snip_tf.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["requirements.txt", "recipes"]
html_theme = "furo"
html_title = "snip_tf"
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
myst_heading_anchors = 3
# For blocks without a language: output and shell commands.
highlight_language = "none"

# Each build runs the notebook, and fails at an error in it.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_in_temp = True
# TensorFlow's messages about the processor.
nb_output_stderr = "remove"

nitpicky = True
# The site is built offline, so other projects' indexes of classes are not read.
nitpick_ignore_regex = [("py:(exc|class)", ".*")]

# Docstrings state types in words, which read better than annotations.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_use_ivar = True
maximum_signature_line_length = 80


def setup(app):
    """Connects the functions that run before napoleon's and Sphinx' own."""
    read = sphinx_extension.as_restructured_text
    app.connect("autodoc-process-docstring", read, priority=400)
    app.connect("doctree-read", sphinx_extension.link_files, priority=400)
