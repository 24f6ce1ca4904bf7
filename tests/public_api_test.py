"""docs/api.txt holds every public name with its signature: a change shows in its diff.

WRITE_API=1 writes it. What is documented (docs/api*.md) is what is in it.
"""

import inspect
import os
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import snip_tf

DOCS = Path(__file__).parents[1] / "docs"
WIDTH = 88


def shown(module: types.ModuleType) -> list[str]:
    """The names that a module shows: those it lists, or that are defined in it."""
    own = [name for name, value in vars(module).items() if defined_in(module, value)]
    return sorted(getattr(module, "__all__", own))


def defined_in(module: types.ModuleType, value: Any) -> bool:
    """Whether it is a public function or class of this very module."""
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return False
    return value.__module__ == module.__name__ and not value.__name__.startswith("_")


def public_names() -> Iterator[tuple[str, Any]]:
    """Every public name but those of modules, in full, with what it stands for."""
    for name in sorted(snip_tf.__all__):
        value = getattr(snip_tf, name)
        if isinstance(value, types.ModuleType):
            for own in shown(value):
                yield f"snip_tf.{name}.{own}", getattr(value, own)
        else:
            yield f"snip_tf.{name}", value


def signature(name: str, value: Any) -> str:
    """The call without its types; one line for each argument where it is long."""
    try:
        parts = inspect.signature(value).parameters.values()
    except ValueError:  # an exception that adds nothing
        return name
    arguments = [str(part.replace(annotation=part.empty)) for part in parts]
    arguments = [re.sub(r"<built-in function (\w+)>", r"\1", a) for a in arguments]
    by_name = [part.kind is part.KEYWORD_ONLY for part in parts]
    if any(by_name):
        arguments.insert(by_name.index(True), "*")
    line = f"{name}({', '.join(arguments)})"
    if len(line) <= WIDTH:
        return line
    return f"{name}(\n" + "".join(f"    {part},\n" for part in arguments) + ")"


def methods(cls: type) -> Iterator[str]:
    """The public attributes that a class of ours adds, with their signatures."""
    for name, value in vars(cls).items():
        if name.startswith("_"):
            continue
        if inspect.isfunction(value):
            yield f"  .{signature(name, value)}"
        elif isinstance(value, property) or name in getattr(cls, "_fields", ()):
            yield f"  .{name}"


def described() -> str:
    """All of it, as in docs/api.txt."""
    lines = []
    for name, value in public_names():
        if callable(value):
            lines.append(signature(name, value))
        else:  # a dict by name
            lines.append(f"{name}: {', '.join(value)}")
        if inspect.isclass(value):
            lines += methods(value)
    return "\n".join(lines) + "\n"


def test_the_api_is_the_one_written_down():
    file = DOCS / "api.txt"
    if os.environ.get("WRITE_API"):
        file.write_text(described(), "utf-8")
    assert described() == file.read_text("utf-8"), "WRITE_API=1 if that is intended"


def test_every_public_name_is_on_a_page():
    pages = "\n".join(page.read_text("utf-8") for page in DOCS.glob("api*.md"))
    directive = r"\.\. (?:auto(?:function|class|exception)|py:data):: (\S+)"
    assert set(re.findall(directive, pages)) == {name for name, _ in public_names()}
    modules = {f"snip_tf.{n}" for n in snip_tf.__all__} - {n for n, _ in public_names()}
    assert all(f"## {module}\n" in pages for module in modules)


def test_every_network_and_data_set_is_on_a_page():
    page = (DOCS / "api_experiments.md").read_text("utf-8")
    for name in (*snip_tf.models.MODELS, *snip_tf.datasets.DATASETS):
        assert f'`"{name}"`' in page


def test_dir_lists_what_is_loaded_when_first_used():
    assert set(snip_tf.__all__) <= set(dir(snip_tf))
