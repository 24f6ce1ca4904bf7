import json

import pytest

from snip_tf.training import runs

PROGRAM = """
import json, pathlib, sys
logdir = pathlib.Path(sys.argv[-1].removeprefix("--logdir="))
files = json.loads({files!r})
for name, text in files.items():
    (logdir / name).write_text(text)
print("the last line")
sys.exit({status})
"""
HISTORY = [{"iteration": 1}]
GOOD = {"result.json": '{"final_error": 2}', "history.json": json.dumps(HISTORY)}


def run(tmp_path, files, status=0):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(files=json.dumps(files), status=status))
    return runs.run(program, {}, tmp_path / "logs")


def test_gives_the_result_and_the_history(tmp_path):
    assert run(tmp_path, GOOD) == {"final_error": 2, "history": HISTORY}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("content", ["", "{", "[" * 100_000])
def test_says_which_file_is_damaged(tmp_path, name, content):
    said = run(tmp_path, {**GOOD, name: content})
    assert "left no whole result" in said
    assert str(tmp_path / "logs" / name) in said


def test_says_that_a_result_is_missing_or_no_dict(tmp_path):
    assert "result.json" in run(tmp_path, {"history.json": "[]"})
    assert "left no whole result" in run(tmp_path, {**GOOD, "result.json": "3"})


def test_gives_what_is_known_of_a_run_that_diverged(tmp_path):
    files = {"diverged.json": '{"diverged": "nan"}'}
    assert run(tmp_path, files, status=1) == {"diverged": "nan"}
    said = run(tmp_path, {"diverged.json": "{"}, status=1)
    assert str(tmp_path / "logs" / "diverged.json") in said


def test_says_how_a_run_failed(tmp_path):
    assert run(tmp_path, {}, status=3).startswith("failed with status 3: the last line")
