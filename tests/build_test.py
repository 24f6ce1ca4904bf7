"""BUILD says what the files import, and the imports keep to the layers."""

import graphlib
import re
import subprocess

import pytest

from tests.build_file import (
    COMMAND,
    FOLDERS,
    ROOT,
    UNSEEN,
    build_text,
    check_no_cycle,
    is_true,
    layering_errors,
    targets,
    undeclared,
    write,
)


def test_build_follows_from_the_imports():
    assert is_true(ROOT), f"BUILD does not fit the Python files. Run: {COMMAND}"


def test_the_files_and_labels_of_build_exist():
    text = (ROOT / "BUILD").read_text(encoding="utf-8")
    names = re.findall(r'^    name = "(.*)",$', text, re.MULTILINE)
    sources = re.findall(r'^    srcs = \["(.*)"\],$', text, re.MULTILINE)
    assert len(names) == len(sources) == len(set(names))
    assert all((ROOT / source).is_file() for source in sources)
    assert set(re.findall(r'":(.*?)"', text)) <= set(names)


def test_there_is_one_build_file():
    """Another would make its folder a package, out of the reach of the first."""
    assert not [file for folder in FOLDERS for file in (ROOT / folder).rglob("BUILD*")]


def test_no_target_depends_on_itself():
    check_no_cycle(ROOT)


def test_pyproject_names_what_is_imported():
    assert not undeclared(ROOT)


def test_the_layers():
    assert not layering_errors(ROOT)


def test_files_with_unseen_needs_exist():
    assert all((ROOT / path).is_file() for path in UNSEEN)


def test_git_ignores_what_the_commands_of_the_readme_write():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    written = re.findall(r"--(?:html|path)=([\w.]+)|\.save\(\"([\w.]+)\"", text)
    names = sorted({"logs/a", "results/a", *map("".join, written)})
    assert {"report.html", "small.keras", "small.tflite"} <= set(names)
    command = ["git", "check-ignore", *names]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        pytest.skip("there is no git")
    if done.returncode == 128:
        pytest.skip("this is no checkout")
    assert done.stdout.split() == names


def test_no_tracked_file_is_ignored():
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        pytest.skip("there is no git")
    assert not done.stdout


@pytest.fixture
def root(tmp_path):
    """A small project with a true BUILD."""
    change(tmp_path, "pyproject.toml", '[project]\ndependencies = ["numpy>=2"]')
    change(tmp_path, "snip_tf/__init__.py", "from snip_tf.a import f")
    change(tmp_path, "snip_tf/a.py", "import numpy as np\ndef f(): ...")
    change(tmp_path, "snip_tf/b.py", "import json")
    change(tmp_path, "snip_tf/sub/__init__.py", "from snip_tf.sub.score import score")
    change(tmp_path, "snip_tf/sub/score.py", "def score(): ...")
    change(tmp_path, "scripts/run.py", "if __name__ == '__main__':\n    print()")
    change(tmp_path, "tests/a_test.py", "from snip_tf.a import f")
    write(tmp_path)
    return tmp_path


def change(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def deps(root, path):
    (target,) = (target for target in targets(root) if target.src == path)
    return target.deps


def test_the_text_of_targets(root):
    text = (root / "BUILD").read_text()
    assert text.endswith("""
py_test(
    name = "tests_a_test",
    srcs = ["tests/a_test.py"],
    args = ["tests/a_test.py"],
    data = ["pyproject.toml"],
    main_module = "pytest",
    deps = [
        ":snip_tf",
        ":snip_tf_a",
        requirement("pytest"),
    ],
)
""")
    assert 'py_binary(\n    name = "scripts_run",' in text
    assert 'py_library(\n    name = "snip_tf_sub",' in text


@pytest.mark.parametrize(
    ("line", "dependency"),
    [
        ("import snip_tf.a", '":snip_tf_a"'),
        ("from snip_tf.a import f", '":snip_tf_a"'),
        ("from snip_tf import a", '":snip_tf_a"'),
        ("from . import a", '":snip_tf_a"'),
        ("def g():\n    from .a import f", '":snip_tf_a"'),
        ("import importlib\nimportlib.import_module('snip_tf.a')", '":snip_tf_a"'),
        ("import sklearn.datasets", 'requirement("scikit-learn")'),
    ],
)
def test_a_missing_dependency_is_noticed(root, line, dependency):
    assert is_true(root)
    change(root, "snip_tf/b.py", line)
    assert not is_true(root)
    write(root)
    assert is_true(root)
    added = f'    srcs = ["snip_tf/b.py"],\n    deps = [{dependency}],\n'
    assert added in (root / "BUILD").read_text()


def test_missing_and_leftover_targets_are_noticed(root):
    change(root, "snip_tf/c.py", "")
    assert not is_true(root)
    (root / "snip_tf/c.py").unlink()
    assert is_true(root)
    (root / "snip_tf/b.py").unlink()
    assert not is_true(root)


def test_only_files_outside_list_the_packages_above(root):
    change(root, "snip_tf/b.py", "import snip_tf.sub.score")
    assert deps(root, "snip_tf/b.py") == {"snip_tf/sub/score.py"}
    change(root, "scripts/run.py", "import snip_tf.sub.score")
    packages = {"snip_tf/__init__.py", "snip_tf/sub/__init__.py"}
    assert deps(root, "scripts/run.py") == packages | {"snip_tf/sub/score.py"}


def test_a_name_that_hides_a_module_comes_from_the_package(root):
    change(root, "snip_tf/b.py", "from snip_tf.sub import score")
    assert "snip_tf/sub/__init__.py" in deps(root, "snip_tf/b.py")


@pytest.mark.parametrize("text", ['"scripts/run.py"', 'x / "scripts" / "run.py"'])
def test_tests_depend_on_the_programs_whose_path_they_name(root, text):
    change(root, "tests/run_test.py", f"script = {text}")
    assert deps(root, "tests/run_test.py") == {"scripts/run.py"}


def test_what_is_written_at_the_root_is_no_part_of_it(root):
    change(root, "tests/run_test.py", "written = 'report.html', 'small.keras'")
    write(root)
    change(root, "report.html", "")
    change(root, "small.keras", "")
    assert is_true(root)


def test_tests_depend_on_the_conftest_above(root):
    change(root, "tests/conftest.py", "")
    change(root, "tests/sub/b_test.py", "")
    assert deps(root, "tests/sub/b_test.py") == {"tests/conftest.py"}


@pytest.mark.parametrize("folder", [".hidden", "build", "dist", "snip_tf.egg-info"])
def test_other_folders_are_left_out(root, folder):
    change(root, f"{folder}/a.py", "")
    change(root, f"snip_tf/{folder}/a.py", "")
    assert is_true(root)


def test_an_import_of_nothing_is_an_error(root):
    change(root, "snip_tf/b.py", "import snip_tf.c")
    with pytest.raises(ValueError, match=r"snip_tf/b\.py imports \['snip_tf\.c'\]"):
        build_text(root)


def test_a_cycle_is_noticed(root):
    check_no_cycle(root)
    change(root, "snip_tf/a.py", "def f():\n    import snip_tf")
    with pytest.raises(graphlib.CycleError):
        check_no_cycle(root)


def test_an_undeclared_requirement_is_noticed(root):
    assert not undeclared(root)
    change(root, "snip_tf/b.py", "import sklearn")
    assert undeclared(root) == {"scikit-learn"}


@pytest.mark.parametrize("layer", ["benchmarks", "scripts", "tests", "tensorflow"])
def test_a_wrong_layer_is_noticed(root, layer):
    change(root, "snip_tf/training/loop.py", "import tensorflow as tf")
    assert not layering_errors(root)
    change(root, "snip_tf/b.py", f"def f():\n    from {layer}.a import b")
    assert layering_errors(root) == [f"snip_tf/b.py imports {layer}"]
