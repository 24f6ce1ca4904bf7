import re
import shlex
from pathlib import Path

import keras

import snip_tf

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_example_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    names = {}
    exec(example, names)
    pruned = names["pruned"]
    assert snip_tf.sparsity(pruned) == 1 - round(0.05 * 50_200) / 50_200
    assert pruned.evaluate(names["x"], names["y"], verbose=0)[1] > 0.9
    assert snip_tf.sparsity(names["model"]) == 0
    assert (tmp_path / "small.keras").stat().st_size > 0
    assert "Prunable parameters" in capsys.readouterr().out


def test_the_table_is_that_of_the_results_kept():
    """As far as its columns go."""
    kept = (ROOT / "benchmarks/results/table1/full/table.md").read_text().splitlines()
    rows = [line for line in kept if line.startswith(("| lenet300 |", "| lenet5 |"))]
    assert len(rows) == 6
    for line in rows:
        assert " | ".join(line.split(" | ")[:6]) + " |" in README


def test_the_tables_of_criteria_are_those_of_the_results_kept():
    kept = (ROOT / "benchmarks/results/sweep/table.md").read_text()
    tables = re.findall(r"\n\| error, %.*?\n\n", kept, flags=re.DOTALL)
    assert [table.count("\n| snip") for table in tables] == [4, 4]
    for table in tables:
        assert table in README


def test_names_every_public_function():
    for name in snip_tf.__all__:
        if name != "MaskedLayer":
            assert f"`{name}" in README or f" `{name}" in README, name


def test_the_two_commands_set_up_a_venv_of_their_own():
    commands = [
        line for line in README.splitlines() if line.startswith("python3 -m venv")
    ]
    main, tests = (shlex.split(command) for command in commands)
    assert main[-2:] == [".venv/bin/python", "scripts/train.py"]
    assert tests[-6:] == ["-m", "pytest", "-n", "2", "--dist", "loadgroup"]
    assert main[:-1] == tests[:-6], "the set-up is the same"
