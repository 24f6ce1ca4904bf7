"""What conf.py adds to Sphinx: plain docstrings, and links to files of the checkout."""

import re
from pathlib import Path

from sphinx.addnodes import download_reference

ROOT = Path(__file__).parents[1]

_SECTION = re.compile(r"(Args|Attributes|Raises|Returns):$")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


def as_restructured_text(app, what, name, obj, options, lines):
    """Rewrites a docstring, which is plain text with `code`, for Sphinx, in place."""
    # Between single backquotes a colon would end a type, and | begin a substitution.
    text = _CODE.sub(r"``\1``", "\n".join(lines))
    section, rewritten = "", []
    for line in text.split("\n"):
        if line and not line.startswith(" "):
            found = _SECTION.match(line)
            section = found[1] if found else ""
        _append(rewritten, line, section)
    lines[:] = rewritten


def _append(lines, line, section):
    """Appends a line to those rewritten before it."""
    after_blank = not lines or not lines[-1].strip()
    indented = line.startswith("    ") and not line.lstrip().startswith(">>> ")
    if section == "Args" and lines and _is_part_of_names(lines[-1]):
        lines[-1] += line[3:]
        return
    if section == "Returns" and lines[-1] == "Returns:":
        # No colon that follows divides a type from what it is.
        line = "    : " + line.strip()
    elif indented and after_blank and not section:
        # A formula, which without this would be a quotation.
        lines += ["::", ""]
    elif not indented:
        line = line.replace("|", "\\|") if "``" not in line else line
    lines.append(line)


def _is_part_of_names(line):
    """Whether a line begins a list of arguments that goes on in the next one."""
    return re.fullmatch(r" {4}\w+(, \w+)*,", line) is not None


def link_to_file(app, env, node, content):
    """Returns a link by which the site gives a file that it has no page of."""
    folder = (Path(env.srcdir) / env.docname).parent
    for path in (folder / node["reftarget"], ROOT / node["reftarget"]):
        path = Path(*path.parts).resolve()
        if path.is_file() and path.is_relative_to(ROOT):
            name = env.dlfiles.add_file(env.docname, str(path))
            link = download_reference("", "", reftarget=str(path), filename=name)
            link += content
            return link
    return None
