"""Extends Sphinx: plain docstrings, and links to files of the checkout."""

import os
import re
from pathlib import Path

from sphinx.addnodes import download_reference, pending_xref

DOCS = Path(__file__).parent
ROOT = DOCS.parent

# Text between single backquotes, and other text.
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_BAR = re.compile(r"(``.+?``)|\|", re.DOTALL)
_NAMES_GO_ON = re.compile(r"^( +\w+(?:, \w+)*,)\n +", re.MULTILINE)


def as_restructured_text(app, what, name, obj, options, lines):
    """Rewrites a docstring, which is plain text with `code`, for Sphinx, in place."""
    rewritten, indent = [], 0
    for paragraph in "\n".join(lines).split("\n\n"):
        if paragraph.lstrip().startswith(">>> "):
            pass
        elif rewritten and _indent(paragraph) >= indent + 4:
            # A formula, which would otherwise be a quotation.
            rewritten.append(" " * indent + "::")
        else:
            paragraph = _text(paragraph)
            indent = _indent(paragraph.split("\n")[-1])
        rewritten.append(paragraph)
    lines[:] = "\n\n".join(rewritten).split("\n")


def _text(paragraph):
    """Rewrites a paragraph that is neither an example nor a formula."""
    # In double backquotes a colon does not end a type, and | is not a substitution.
    paragraph = _CODE.sub(r"``\1``", paragraph)
    paragraph = _BAR.sub(lambda found: found[1] or r"\|", paragraph)
    if paragraph.startswith("Args:"):
        paragraph = _NAMES_GO_ON.sub(r"\1 ", paragraph)
    # So that no colon of the text is mistaken for the one after a type.
    return paragraph.replace("Returns:\n    ", "Returns:\n    : ", 1)


def _indent(text):
    return len(text) - len(text.lstrip(" "))


def link_files(app, doctree):
    """Adds linked files that are not pages to the site."""
    for link in list(doctree.findall(pending_xref)):
        path = (ROOT / link["reftarget"]).with_suffix(".md")
        if link["reftype"] == "myst" and path.is_file() and DOCS not in path.parents:
            target = os.path.relpath(path, DOCS)
            file = download_reference("", "", *link.children, reftarget=target)
            link.replace_self(file)
