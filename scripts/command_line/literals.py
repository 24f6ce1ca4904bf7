"""Reads literals from files of the repository: importing them takes seconds."""

import ast
import importlib.util
from pathlib import Path
from typing import Any


def names(path: str, variable: str) -> list[str]:
    """Returns the keys of a literal dict of the library, or a literal tuple's items.

    Args:
        path: the path of the file below snip_tf.
        variable: the name that the dict or tuple is assigned to.
    """
    spec = importlib.util.find_spec("snip_tf")
    if spec is None or not spec.submodule_search_locations:
        raise LookupError("Expected snip_tf to be installed, or in PYTHONPATH")
    [root] = spec.submodule_search_locations
    for node in ast.parse((Path(root) / path).read_text("utf-8")).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=value)
            ) if name == variable:
                items = getattr(value, "keys", None) or getattr(value, "elts", [])
                return [ast.literal_eval(item) for item in items]
    raise LookupError(f"{path} has no literal {variable}")


def default_flags(path: Path) -> dict[str, Any]:
    """Returns the flags that another program defines, with their defaults."""
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    defaults = {}
    for call in calls:
        name, kind = call.args[:2], getattr(call.func, "attr", "")
        if kind.startswith("DEFINE_"):
            first, second = map(ast.literal_eval, name)
            defaults[first] = None if kind == "DEFINE_alias" else second
    return defaults
