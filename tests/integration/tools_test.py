"""scripts/export.py and scripts/report.py: once as processes, else in this one."""

import json
import os
import re
import zipfile

import keras
import numpy as np
import pytest
from absl import flags

from snip_tf import models
from tests.canned_runs import refuses_in_a_line
from tests.programs import loaded, run_main, run_program
from tests.random_networks import prune_at_random


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pruned = prune_at_random(models.build("lenet300"), 0.98, np.random.default_rng(0))
    path = tmp_path_factory.mktemp("model") / "model.keras"
    pruned.save(path)
    return path


def test_a_process_exports_and_says_no_more_than_the_size(model, tmp_path):
    pytest.importorskip("ai_edge_litert")
    given = (f"--model={model}", "--path=small.tflite", "--format=litert")
    done = run_program("export.py", *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert done.stdout.startswith("small.tflite: ")
    assert done.stdout.count("\n") == 1
    assert os.listdir(tmp_path) == ["small.tflite"]


def test_a_process_reports_in_all_forms(model, tmp_path):
    forms = {"html": "r.html", "csv": "r.csv", "markdown": "r.md", "json": "r.json"}
    given = [f"--{form}={name}" for form, name in forms.items()]
    done = run_program("report.py", f"--model={model}", *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "dense1" in done.stdout
    assert sorted(os.listdir(tmp_path)) == sorted(forms.values())
    kept = json.loads((tmp_path / "r.json").read_text())
    assert kept["totals"]["multiply_adds"] == 266_200


@pytest.fixture
def export():
    with loaded("scripts/export.py") as program:
        yield program


@pytest.fixture
def report():
    with loaded("scripts/report.py") as program:
        yield program


def test_export_compacts_by_default(export, model, tmp_path, capsys):
    small, whole = tmp_path / "small.keras", tmp_path / "whole.keras"
    run_main(export, f"--model={model}", f"--path={small}")
    run_main(export, f"--model={model}", f"--path={whole}", "--nocompact")
    assert "small.keras: " in capsys.readouterr().out
    assert keras.models.load_model(small).count_params() < 120_000
    assert keras.models.load_model(whole).count_params() == 266_610


def test_says_in_a_line_what_is_wrong(export, model, tmp_path):
    path = tmp_path / "a.h5"
    refuses_in_a_line(
        "ends in '.keras'",
        lambda: run_main(export, f"--model={model}", f"--path={path}"),
    )
    assert not os.listdir(tmp_path)


def refuses_the_same_file(program, *given):
    with pytest.raises(flags.Error, match="expected a different file for each"):
        run_main(program, *given)


def test_an_export_does_not_replace_the_model_by_one_without_masks(
    export, model, tmp_path
):
    before = model.read_bytes()
    link = tmp_path / "link.keras"
    link.symlink_to(model)
    for path in (model, link):
        refuses_the_same_file(export, f"--model={model}", f"--path={path}")
    assert model.read_bytes() == before


def test_a_report_writes_over_no_file_of_its_own(report, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = model.read_bytes()
    (tmp_path / "link.keras").symlink_to(model)
    for given in (
        [f"--csv={model}"],
        ["--json=link.keras"],
        ["--html=a", "--markdown=./a"],
    ):
        refuses_the_same_file(report, f"--model={model}", *given)
    assert model.read_bytes() == before
    assert os.listdir(tmp_path) == ["link.keras"]


def test_a_report_writes_several_forms_to_a_pipe(report, model):
    reader, writer = os.pipe()
    several = [f"--{form}=/dev/fd/{writer}" for form in ("csv", "markdown")]
    run_main(report, f"--model={model}", *several)
    os.close(writer)
    with open(reader) as pipe:
        output = pipe.read()
    assert output.startswith('"layer",')
    assert re.search(r"^\|[- |:]+\|$", output, re.MULTILINE)


@pytest.fixture(params=["report", "export"])
def main(request):
    """Either program, given a model."""
    program = request.getfixturevalue(request.param)

    def run(path):
        out = f"--path={path.parent / 'out.keras'}"
        own = [out] if request.param == "export" else []
        run_main(program, f"--model={path}", *own)

    return run


def flip(content, place):
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


def with_config(model, path, change):
    """The same archive with another config.json; without one, where it is None."""
    with zipfile.ZipFile(model) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                content = change(content)
            if content is not None:
                new.writestr(name, content)


def refuses(main, path):
    with pytest.raises(SystemExit, match=re.escape(str(path))) as refusal:
        main(path)
    assert refusal.value.code.isprintable()
    assert len(refusal.value.code) < 700 + len(str(path))
    assert not (path.parent / "out.keras").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: b"PK",
        lambda content: content[: len(content) // 2],
        lambda content: flip(content, content.index(b"config.json") + 30),
        lambda content: flip(content, content.rindex(b"config.json")),
    ],
)
def test_a_damaged_model_is_named(main, model, tmp_path, change):
    path = tmp_path / "damaged.keras"
    path.write_bytes(change(model.read_bytes()))
    refuses(main, path)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: None,
        lambda config: b"3",
        lambda config: b"[" * 100_000,
        lambda config: json.dumps(
            keras.saving.serialize_keras_object(keras.layers.Dense(3))
        ).encode(),
        lambda config: config.replace(b'"masks": {', b'"masks": 3, "other": {'),
        lambda config: config.replace(b'"sublayer_names": [', b'"names": ['),
        pytest.param(  # TensorFlow waits ten seconds for the memory
            lambda config: config.replace(b'"units": 300', b'"units": 100000000000000'),
            marks=pytest.mark.slow,
        ),
        lambda config: config.replace(b'"units": 300', b'"units": -1'),
    ],
)
def test_a_model_of_another_config_is_named(main, model, tmp_path, change):
    path = tmp_path / "changed.keras"
    with_config(model, path, change)
    assert path.read_bytes() != model.read_bytes()
    refuses(main, path)
