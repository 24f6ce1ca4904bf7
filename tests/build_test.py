"""BUILD, pyproject.toml and the rooms of the library fit what the files import."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

# Not resolved: Bazel shows a test the files it was promised, through links.
ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "snip_tf"

# Names on PyPI that are not the name of the import.
DISTRIBUTIONS = {
    "absl": "absl-py",
    "ai_edge_litert": "ai-edge-litert",
    "keras_hub": "keras-hub",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
}
# What others need without declaring it: tensorflow-datasets, and tf.summary.
UNSEEN = {"experiments": {"importlib-resources", "tensorboard"}}
# Backends that Keras may run on instead of TensorFlow, which the programs need.
INSTEAD = {"jax", "torch"}
DEVELOPMENT = {"hypothesis", "pytest"}


def imported(file: Path) -> Iterator[str]:
    """The modules that a file imports, with dots; also those inside functions."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "snip_tf":
            yield from (f"snip_tf.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def rooms() -> dict[str, list[Path]]:
    """The files and folders of the library, but its __init__.py, with their files."""
    files = sorted(LIBRARY.rglob("*.py"))
    found: dict[str, list[Path]] = {}
    for file in files:
        first = file.relative_to(LIBRARY).parts[0]
        found.setdefault(first.removesuffix(".py"), []).append(file)
    del found["__init__"]
    return found


def needs(files: list[Path]) -> tuple[set[str], set[str]]:
    """What some files import: of the library, and of PyPI."""
    names = {name for file in files for name in imported(file)}
    own = {name.split(".")[1] for name in names if name.startswith("snip_tf.")}
    others = {name.partition(".")[0] for name in names} - {"snip_tf"}
    others -= sys.stdlib_module_names
    return own, {DISTRIBUTIONS.get(name, name) for name in others}


def test_build_names_what_each_room_imports():
    text = (ROOT / "BUILD").read_text("utf-8")
    listed = ast.literal_eval(re.search(r"^ROOMS = (\{.*?^\})", text, re.M | re.S)[1])
    for room, files in rooms().items():
        own, packages = needs(files)
        packages = packages - INSTEAD | UNSEEN.get(room, set())
        assert listed.pop(room, None) == (sorted(own - {room}), sorted(packages)), room
    assert not listed


def test_build_is_short_and_alone():
    """Another would make its folder a package, out of the reach of the first."""
    assert [path.relative_to(ROOT) for path in ROOT.glob("[!.]*/**/BUILD*")] == []
    assert len((ROOT / "BUILD").read_text("utf-8").splitlines()) <= 150


def test_the_rooms_import_in_one_direction():
    graph = {room: needs(files)[0] - {room} for room, files in rooms().items()}
    graphlib.TopologicalSorter(graph).prepare()
    assert len(list(LIBRARY.glob("[!_]*"))) <= 20


def test_the_library_imports_no_program():
    for files in rooms().values():
        assert not needs(files)[1] & {"benchmarks", "scripts", "tests"}


def test_pyproject_names_what_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    lines = [line for some in (project["dependencies"], *extras) for line in some]
    declared = {re.match(r"[\w.-]+", line)[0] for line in lines}
    files = [
        file
        for folder in ("benchmarks", "docs/recipes", "scripts", "snip_tf", "tests")
        for file in (ROOT / folder).rglob("*.py")
    ]
    # A program imports what lies beside it, files and folders.
    beside = {name for file in files for name in (file.stem, file.parent.name)}
    assert needs(files)[1] - beside <= declared | DEVELOPMENT


def test_git_ignores_what_the_commands_of_the_documents_write():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text("utf-8") for page in pages)
    written = re.findall(r"--(?:html|path)=([\w.]+)|\.save\(\"([\w.]+)\"", text)
    names = sorted({"logs/a", "results/a", *map("".join, written)})
    assert {"report.html", "small.keras", "small.tflite"} <= set(names)
    done = git("check-ignore", *names)
    if done.returncode == 128:
        pytest.skip("this is no checkout")
    assert done.stdout.split() == names


def test_no_tracked_file_is_ignored():
    done = git("ls-files", "--cached", "--ignored", "--exclude-standard")
    assert not done.stdout


def git(*arguments: str) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True
        )
    except OSError:
        pytest.skip("there is no git")
