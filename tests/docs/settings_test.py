"""Versions are said once, or the same everywhere."""

import re
import tomllib
from pathlib import Path

from packaging.version import Version

import snip_tf

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def pinned(file):
    """The versions that a file of requirements pins, by name."""
    lines = (ROOT / file).read_text("utf-8").splitlines()
    lines = [line for line in lines if line and line[0] not in "#-"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    return dict(line.split("==") for line in lines)


def test_the_version_is_said_once():
    assert "version" in PROJECT["project"]["dynamic"]
    source = (ROOT / PROJECT["tool"]["hatch"]["version"]["path"]).read_text("utf-8")
    assert f'__version__ = "{snip_tf.__version__}"' in source
    assert snip_tf.__version__ in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_types_are_part_of_the_package():
    assert "Typing :: Typed" in PROJECT["project"]["classifiers"]
    assert (ROOT / "snip_tf" / "py.typed").exists()


def test_the_readme_has_no_dead_links_on_an_index():
    [changed] = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"][
        "substitutions"
    ]
    readme = (ROOT / "README.md").read_text("utf-8")
    shown = re.sub(changed["pattern"], changed["replacement"], readme)
    assert all(
        link.startswith("https://") for link in re.findall(r"\]\((.*?)\)", shown)
    )
    assert "Savings (`docs/savings.md`)" in shown


def test_the_site_is_built_with_pinned_versions():
    assert {"furo", "myst-nb", "sphinx"} <= set(pinned("docs/requirements.txt"))
    assert not set(pinned("docs/requirements.txt")) & set(pinned("requirements.txt"))


def test_the_workflow_tries_the_floors():
    workflow = (ROOT / ".github/workflows/ci.yml").read_text("utf-8")
    extras = PROJECT["project"]["optional-dependencies"]
    lines = [*PROJECT["project"]["dependencies"], *extras["tensorflow"]]
    for name, floor in (line.split(">=") for line in lines if ">=" in line):
        tried = re.findall(rf"{name}==([\d.]+\d)", workflow)
        assert min(tried, key=Version) == floor, name


def test_the_workflow_tries_each_row_of_the_matrix():
    program = (ROOT / "tests/matrix/run.py").read_text("utf-8")
    rows = re.findall(r'^    "(.+)": Row\(', program, re.MULTILINE)
    workflow = (ROOT / ".github/workflows/ci.yml").read_text("utf-8")
    assert re.findall(r"^          - (\w[^:\n]*)$", workflow, re.MULTILINE) == rows


def test_commits_are_checked_by_the_ruff_of_the_tests():
    settings = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    assert f"rev: v{pinned('requirements.txt')['ruff']} " in settings
