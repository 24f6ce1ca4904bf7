"""What README.md says is true: its example, commands, figures, and names."""

import io
import re
import shlex
from contextlib import redirect_stdout
from pathlib import Path

import keras
import pytest

import snip_tf

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
NUMBER = re.compile(r"[\d,]*\.?\d+")


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The names and the output that the example leaves behind, and its folder."""
    (program,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    folder, names = tmp_path_factory.mktemp("readme"), {}
    keras.backend.clear_session()  # names of layers count from the start
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.chdir(folder)
        exec(program, names)
    return names, out.getvalue(), folder


def test_the_example_prunes_and_trains(example):
    names, _, folder = example
    assert snip_tf.sparsity(names["pruned"]) == 1 - round(0.05 * 50_200) / 50_200
    assert names["pruned"].evaluate(names["x"], names["y"], verbose=0)[1] > 0.9
    assert snip_tf.sparsity(names["model"]) == 0
    assert (folder / "small.keras").exists()


def test_the_output_shown_is_that_of_the_example(example):
    """In words; in figures nearly, as processors round differently."""
    shown = re.findall(r"```\n(Pruned model.*?)```", README, flags=re.DOTALL)
    assert len(shown) == 1
    assert words(shown[0]) == words(example[1])
    assert figures(shown[0]) == pytest.approx(figures(example[1]), rel=0.1, abs=5)


def words(text):
    return re.sub(r" +", " ", NUMBER.sub("#", text))


def figures(text):
    return [float(number.replace(",", "")) for number in NUMBER.findall(text)]


def test_is_short():
    assert len(README) <= 6500


def test_the_table_is_that_of_the_results_kept():
    """As far as its columns go."""
    kept = (ROOT / "benchmarks/results/table1/full/table.md").read_text().splitlines()
    rows = [line for line in kept if line.startswith(("| lenet300 |", "| lenet5 |"))]
    assert len(rows) == 6
    for line in rows:
        assert " | ".join(line.split(" | ")[:6]) + " |" in README


def test_names_every_public_function():
    for name in snip_tf.__all__:
        if name[0].islower():  # no class: those are on the page of the API
            assert f"`{name}" in README, name


def test_the_two_commands_set_up_a_venv_of_their_own():
    commands = [
        line for line in README.splitlines() if line.startswith("python3 -m venv")
    ]
    main, tests = (shlex.split(command) for command in commands)
    assert main[-2:] == [".venv/bin/python", "scripts/train.py"]
    assert tests[-6:] == ["-m", "pytest", "-n", "2", "--dist", "loadgroup"]
    assert main[:-1] == tests[:-6], "the set-up is the same"


def test_every_link_leads_to_a_file():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)#\s]+)", text):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), (page.name, link)
