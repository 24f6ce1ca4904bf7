"""How programs end by a signal, an error of a library, or output that goes nowhere."""

import os
import re
import signal
import subprocess

import pytest

from tests.programs import REQUIRED, process, run_program, start_program

PROGRAMS = ["train.py", "sweep.py", *REQUIRED]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_flags_are_known(tmp_path, number):
    (tmp_path / "absl.py").write_text(
        "import time\nprint('imported', flush=True)\ntime.sleep(100)\n"
    )
    with start_program("report.py", cwd=tmp_path, first=[tmp_path]) as process:
        assert process.stdout.readline() == "imported\n"
        process.send_signal(number)
        rest = process.stdout.read()
    assert process.returncode == 128 + number
    assert re.fullmatch(rf"\nInterrupted \({number.name}\) before [^\n]+\.\n", rest)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_signal_while_libraries_are_imported(name, number, tmp_path):
    """Twice, as by somebody impatient."""
    (tmp_path / "keras.py").write_text(
        "import sys, time\n"
        "sys.stderr.write('says much')\n"
        "print('imported', flush=True)\n"
        "time.sleep(100)\n"
    )
    flags = REQUIRED.get(name, ())
    with start_program(name, *flags, cwd=tmp_path, first=[tmp_path]) as process:
        assert process.stdout.readline() == "imported\n"
        process.send_signal(number)
        process.send_signal(number)
        rest = process.stdout.read()
    assert process.returncode == 128 + number
    assert re.fullmatch(rf"\nInterrupted \({number.name}\)\. [^\n]+\.\n", rest)


def test_a_signal_that_python_does_not_get_to(tmp_path):
    """As in a long step of TensorFlow: here a lock that is waited for in C."""
    (tmp_path / "keras.py").write_text(
        "import ctypes\n"
        "print('imported', flush=True)\n"
        "lock = ctypes.create_string_buffer(256)\n"
        "for _ in range(2):\n"
        "    ctypes.CDLL(None).pthread_mutex_lock(lock)\n"
    )
    with start_program("train.py", cwd=tmp_path, first=[tmp_path]) as process:
        assert process.stdout.readline() == "imported\n"
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130
    assert rest == "\nInterrupted (SIGINT). The same command continues.\n"


def test_output_of_libraries_is_shown_where_they_fail(tmp_path):
    (tmp_path / "keras.py").write_text(
        "import sys\nsys.stderr.write('no GPU')\n1 / 0\n"
    )
    done = run_program("train.py", cwd=tmp_path, first=[tmp_path])
    assert "no GPU" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_keras_runs_on_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    (tmp_path / "keras.py").write_text(
        "import os, sys\nsys.exit(os.environ['KERAS_BACKEND'])\n"
    )
    done = run_program("train.py", cwd=tmp_path, first=[tmp_path])
    assert done.stderr == "tensorflow\n"


def test_output_that_goes_nowhere_ends_a_program(tmp_path):
    reader, broken = os.pipe()
    os.close(reader)
    full = os.open("/dev/full", os.O_WRONLY)
    for descriptor, code, said in (
        (broken, 128 + signal.SIGPIPE, ""),
        (full, 1, "Cannot write to standard output: .* No space left.* anew"),
    ):
        options = process("report.py", ["--help"], tmp_path)
        done = subprocess.run(**options, stdout=descriptor, stderr=subprocess.PIPE)
        os.close(descriptor)
        assert done.returncode == code
        assert re.match(said, done.stderr.decode())
        assert b"Traceback" not in done.stderr


def test_any_character_is_shown(tmp_path):
    (tmp_path / "keras.py").write_text("import sys\nprint('\xb1 1')\nsys.exit(0)\n")
    options = process("train.py", [], tmp_path, [tmp_path], PYTHONIOENCODING="ascii")
    done = subprocess.run(**options, capture_output=True)
    assert done.stdout == b"\\xb1 1\n"
