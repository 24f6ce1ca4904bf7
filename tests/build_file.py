"""Keeps BUILD true: its text follows from the imports of the Python files.

    python tests/build_file.py --write

rewrites it. `tests/build_test.py` says when that is due.
"""

import ast
import dataclasses
import graphlib
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Not resolved: Bazel shows a test the files it was promised, through links.
ROOT = Path(__file__).parents[1]
THIS = "tests/build_file.py"
COMMAND = f"python {THIS} --write"

FOLDERS = ("benchmarks", "scripts", "snip_tf", "tests")
NOT_OURS = re.compile(r"\..*|build|dist|.*\.egg-info")

# Names on PyPI that are not the name of the import.
DISTRIBUTIONS = {"absl": "absl-py", "sklearn": "scikit-learn"}
DEVELOPMENT = {"hypothesis", "pytest"}
# What a file needs by calling others, which import it without declaring it.
UNSEEN = {
    "snip_tf/datasets/tfds.py": {"importlib-resources"},  # by tensorflow-datasets
    "snip_tf/training/loop.py": {"tensorboard"},  # by tf.summary
}
# What a program finds because it lies in its own folder.
BESIDE = {
    "command_line": "scripts.command_line",
    "early": "scripts.early",
    "processes": "benchmarks.processes",
}
# What tests read of the files at the root; others may be a user's own, or written by
# the commands in the README.
READ = {"BUILD", "LICENSE", "README.md", "pyproject.toml", "requirements.txt"}
MAY_IMPORT_TENSORFLOW = (
    "snip_tf/allocating.py",
    "snip_tf/compiling.py",
    "snip_tf/litert.py",
    "snip_tf/datasets/",
    "snip_tf/calling.py",
    "snip_tf/data_loss.py",
    "snip_tf/copying.py",
    "snip_tf/examples.py",
    "snip_tf/numerics.py",
    "snip_tf/objective.py",
    "snip_tf/sensitivity.py",
    "snip_tf/serving.py",
    "snip_tf/training/",
)

HEADER = f"""\
# Bazel: one target for each Python file, written from the files' imports.
#
# Do not edit. After adding a file or an import, run `{COMMAND}`;
# tests/build_test.py fails until then.
#
# `import snip_tf.a.b` also runs snip_tf/__init__.py and snip_tf/a/__init__.py. These
# import the modules in turn, so a module that listed them would close a cycle. Inside
# the package, therefore, a file lists the modules it imports by name, and a package
# only where it takes a name from its __init__.py. Files outside (benchmarks, scripts,
# tests) list the packages too, `:snip_tf` first.
#
# Needs a pip hub named `pypi`, and rules_python 1.7 or later: `main_module` lets pytest
# run the tests, which by themselves would only be imported, and pass.

load("@pypi//:requirements.bzl", "requirement")
load("@rules_python//python:defs.bzl", "py_binary", "py_library", "py_test")

package(default_visibility = ["//visibility:public"])
"""

Trees = dict[str, ast.Module]  # by the file's path from the root, in order


@dataclasses.dataclass(frozen=True)
class Target:
    """A rule of BUILD; `deps` are paths, `requirements` names on PyPI."""

    rule: str
    src: str
    deps: set[str]
    requirements: set[str]
    data: set[str]


def build_text(root: Path) -> str:
    """What BUILD has to say about the files under `root`."""
    return "\n".join([HEADER, *map(render, targets(root))])


def write(root: Path) -> None:
    """Replaces BUILD in one step, so that nobody reads half of it."""
    new = root / "BUILD.new"
    new.write_text(build_text(root), encoding="utf-8")
    new.replace(root / "BUILD")


def is_true(root: Path) -> bool:
    return (root / "BUILD").read_text(encoding="utf-8") == build_text(root)


def targets(root: Path) -> list[Target]:
    trees = parse(root)
    data = {file.name for file in root.iterdir() if file.is_file()} & READ
    return [target_of(path, trees, data) for path in trees]


def parse(root: Path) -> Trees:
    files = [file for folder in FOLDERS for file in (root / folder).rglob("*.py")]
    paths = sorted(file.relative_to(root).as_posix() for file in files)
    return {
        path: ast.parse((root / path).read_text(encoding="utf-8"), path)
        for path in paths
        if not any(map(NOT_OURS.fullmatch, path.split("/")))
    }


def target_of(path: str, trees: Trees, files: set[str]) -> Target:
    rule, data = rule_of(path, trees[path]), set()
    deps, requirements = project_files(path, trees), third_party(path, trees[path])
    if not path.startswith("snip_tf/") and path != THIS:
        named = paths_named(trees[path])
        deps |= named & trees.keys()
        data = named & files
    if rule == "py_test":
        deps |= conftests(path) & trees.keys()
        requirements.add("pytest")
        data.add("pyproject.toml")  # pytest's settings
    return Target(rule, path, deps - {path}, requirements, data)


def rule_of(path: str, tree: ast.Module) -> str:
    """A program is what has an `if __name__ == "__main__"`."""
    if path.startswith("tests/") and path.endswith("_test.py"):
        return "py_test"
    tests = [ast.unparse(node.test) for node in tree.body if isinstance(node, ast.If)]
    runs = path.startswith(("benchmarks/", "scripts/")) and (
        "__name__ == '__main__'" in tests
    )
    return "py_binary" if runs else "py_library"


def imports(path: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Each module imported, inside functions too, and the name taken from it or ""."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                names = (alias.name for alias in aliases)
                yield from ((BESIDE.get(name, name), "") for name in names)
            case ast.ImportFrom(module=module, names=aliases, level=level):
                base = absolute(path, "." * level + (module or ""))
                yield from ((base, alias.name) for alias in aliases)
            case ast.Call(
                func=ast.Attribute(attr="import_module" | "importorskip"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield module, ""


def absolute(path: str, module: str) -> str:
    package = ".".join(path.split("/")[:-1])
    return importlib.util.resolve_name(BESIDE.get(module, module), package)


def top(module: str) -> str:
    return module.split(".")[0]


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def third_party(path: str, tree: ast.Module) -> set[str]:
    tops = {top(module) for module, _ in imports(path, tree)}
    tops -= sys.stdlib_module_names | set(FOLDERS)
    names = {pypi_name(DISTRIBUTIONS.get(name, name)) for name in tops}
    return names | UNSEEN.get(path, set())


def pypi_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def project_files(path: str, trees: Trees) -> set[str]:
    """Paths of the project's files that the file at `path` imports."""
    modules = {module_of(file): file for file in trees}
    used = set()
    for module, name in imports(path, trees[path]):
        if top(module) in FOLDERS:
            used |= providers(module, name, modules, trees)
            if top(module) != top(module_of(path)):
                used |= packages_above(f"{module}.{name}") & modules.keys()
    if unknown := used - modules.keys():
        raise ValueError(f"{path} imports {sorted(unknown)}, which are no files.")
    return {modules[module] for module in used}


def providers(
    module: str, name: str, modules: dict[str, str], trees: Trees
) -> set[str]:
    """The modules behind `from module import name`."""
    submodule = f"{module}.{name}"
    if submodule not in modules:
        return {module}
    init = modules.get(module)
    if init and name in names_taken(init, trees[init]):
        return {submodule, module}
    return {submodule}


def names_taken(init: str, tree: ast.Module) -> set[str]:
    """Names an __init__.py imports; one that is a submodule's too hides it."""
    return {name for base, name in imports(init, tree) if base != module_of(init)}


def packages_above(module: str) -> set[str]:
    parts = module.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts))}


def conftests(path: str) -> set[str]:
    """Pytest runs them without being asked."""
    return {str(folder / "conftest.py") for folder in PurePosixPath(path).parents}


def paths_named(tree: ast.Module) -> set[str]:
    """Every string, and paths such as `root / "scripts" / "a.py"`, joined."""
    return {joined(node) for node in ast.walk(tree)}


def joined(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.BinOp(left=left, op=ast.Div(), right=ast.Constant(value=str(text))):
            return f"{joined(left)}/{text}".removeprefix("/")
    return ""


def render(target: Target) -> str:
    """The rule, as buildifier formats it."""
    fields = {"name": f'"{name_of(target.src)}"', "srcs": listed([target.src])}
    if target.rule == "py_binary":
        fields["main"] = f'"{target.src}"'
    if target.rule == "py_test":
        fields |= {"args": listed([target.src]), "main_module": '"pytest"'}
    if target.data:
        fields["data"] = listed(sorted(target.data))
    if target.src == THIS:
        fields |= fields_of_this()
    if target.deps or target.requirements:
        fields["deps"] = render_deps(target)
    lines = [f"    {key} = {fields[key]}," for key in sorted(fields, key=position)]
    return "\n".join([f"{target.rule}(", *lines, ")\n"])


def fields_of_this() -> dict[str, str]:
    """This file reads all others, and minds an __init__.py that Bazel adds."""
    files = listed(["BUILD", "pyproject.toml"])
    patterns = listed([f"{folder}/**/*.py" for folder in FOLDERS])
    return {"data": f"{files} + glob({patterns})", "legacy_create_init": "False"}


def name_of(path: str) -> str:
    return module_of(path).replace(".", "_")


def position(field: str) -> tuple[int, str]:
    return {"name": 0, "srcs": 1, "deps": 3}.get(field, 2), field


def render_deps(target: Target) -> str:
    labels = [f'":{name}"' for name in sorted(map(name_of, target.deps))]
    required = [f'requirement("{name}")' for name in sorted(target.requirements)]
    return bracketed(labels + required)


def listed(texts: list[str]) -> str:
    return bracketed([f'"{text}"' for text in texts])


def bracketed(items: list[str]) -> str:
    if len(items) == 1:
        return f"[{items[0]}]"
    return "\n".join(["[", *(f"        {item}," for item in items), "    ]"])


def check_no_cycle(root: Path) -> None:
    graph = {target.src: target.deps for target in targets(root)}
    graphlib.TopologicalSorter(graph).prepare()


def undeclared(root: Path) -> set[str]:
    """What the files need and pyproject.toml does not name."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    lines = sum(extras, start=project["dependencies"])
    declared = {pypi_name(re.match(r"[\w.-]+", line)[0]) for line in lines}
    required = set().union(*(target.requirements for target in targets(root)))
    return required - declared - DEVELOPMENT


def layering_errors(root: Path) -> list[str]:
    errors = []
    for path, tree in parse(root).items():
        if path.startswith("snip_tf/"):
            found = {top(module) for module, _ in imports(path, tree)}
            if path.startswith(MAY_IMPORT_TENSORFLOW):
                found.discard("tensorflow")
            forbidden = found & {"benchmarks", "scripts", "tests", "tensorflow"}
            errors += [f"{path} imports {name}" for name in sorted(forbidden)]
    return errors


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"Usage: {COMMAND}")
    write(ROOT)
