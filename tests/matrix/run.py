"""Tries the life of a pruned model on many versions of Keras and its backends.

    python tests/matrix/run.py [--only=NAME ...] [--result=matrix.json] [--write]

Each row of versions gets an environment of its own, into which the wheel of this
checkout is installed, and runs `life.py` from an empty folder. What an interpreter or a
package index lacks is a result, too. At the end, a table in Markdown, which `--write`
puts into docs/supported_models.md; the exit status is 0 if all passed.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pages

ROOT = Path(__file__).resolve().parents[2]


class Row(NamedTuple):
    """An environment: what is installed before the library, and what over it."""

    packages: tuple[str, ...]
    backend: str = "tensorflow"
    python: str = "3.11"
    over: tuple[str, ...] = ()  # without what it depends on


ROWS = {
    "newest": Row(("keras", "tensorflow")),
    "nightly Keras": Row(("keras", "tensorflow"), over=("keras-nightly",)),
    "3.13, TF 2.20": Row(("keras==3.13.*", "tensorflow==2.20.*")),
    "3.10, TF 2.19": Row(("keras==3.10.*", "tensorflow==2.19.*")),
    "3.8, TF 2.18, NumPy 1.26": Row(
        ("keras==3.8.*", "tensorflow==2.18.*", "numpy==1.26.*")
    ),
    "3.8, TF 2.18, NumPy 2.0": Row(
        ("keras==3.8.*", "tensorflow==2.18.*", "numpy==2.0.*")
    ),
    "newest, Python 3.12": Row(("keras", "tensorflow"), python="3.12"),
    "newest, Python 3.13": Row(("keras", "tensorflow"), python="3.13"),
    "JAX": Row(("keras", "jax"), "jax"),
    "PyTorch": Row(("keras", "torch==2.13.0"), "torch"),
}


def built_wheel(folder: Path) -> Path:
    """Builds the wheel of the checkout."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder]
    subprocess.run([*command, ROOT], check=True)
    [wheel] = folder.glob("*.whl")
    return wheel


def environment(row: Row, wheel: Path, folder: Path) -> Path:
    """Returns the interpreter of a new environment with the library in it."""
    interpreter = shutil.which(f"python{row.python}") or f"python{row.python}"
    python = folder / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "-q"]
    commands = [
        [interpreter, "-m", "venv", python.parents[1]],
        [*pip, *row.packages],
        [*pip, wheel],
        [*pip, "--no-deps", "--force-reinstall", *row.over],
    ]
    for command in commands if row.over else commands[:-1]:
        subprocess.run(command, capture_output=True, text=True, check=True)
    return python


def tried(row: Row, wheel: Path) -> dict[str, Any] | str:
    """Returns what `life.py` says in a new environment, or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            python = environment(row, wheel, Path(folder))
        except FileNotFoundError:
            return f"no python{row.python} here"
        except subprocess.CalledProcessError as error:
            return error.stderr.strip().splitlines()[0]
        empty = Path(folder, "empty")
        empty.mkdir()
        done = subprocess.run(
            [python, shutil.copy(Path(__file__).with_name("life.py"), empty)],
            cwd=empty,
            env={
                "HOME": folder,
                "KERAS_BACKEND": row.backend,
                "PATH": str(python.parent),
                "TF_CPP_MIN_LOG_LEVEL": "3",
            },
            capture_output=True,
            text=True,
        )
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return done.stderr.strip().splitlines()[-1]


def cell(found: dict[str, str] | None) -> str:
    """Describes the steps of a kind in a few words."""
    if found is None:
        return "not tried"
    failed = [name for name, said in found.items() if said != "passed"]
    if not failed:
        return "passed"
    return f"{len(found) - len(failed)} of {len(found)} (not {', '.join(failed)})"


def table(results: dict[str, dict[str, Any] | str]) -> str:
    """Returns the results in Markdown: a line for each environment."""
    ran = [found for found in results.values() if isinstance(found, dict)]
    kinds = list(dict.fromkeys(kind for found in ran for kind in found["steps"]))
    lines = [["ran with", *kinds]]
    for name, found in results.items():
        if isinstance(found, dict):
            cells = [cell(found["steps"].get(kind)) for kind in kinds]
            lines.append([found["versions"], *cells])
        else:
            lines.append([f"{name}: {found}", *[""] * len(kinds)])
    return pages.table(lines)


def passed(found: dict[str, Any] | str) -> bool:
    """Returns whether an environment ran all steps, and each passed."""
    if isinstance(found, str):
        return False
    kinds = found["steps"].values()
    return all(said == "passed" for kind in kinds for said in kind.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=ROWS, help="a row; repeat")
    parser.add_argument("--result", type=Path, help="a JSON file to write")
    parser.add_argument("--write", action="store_true", help="into the page")
    flags = parser.parse_args()
    results: dict[str, dict[str, Any] | str] = {}
    with tempfile.TemporaryDirectory() as folder:
        wheel = built_wheel(Path(folder))
        for name in flags.only or ROWS:
            print(f"{name} ...", file=sys.stderr, flush=True)
            results[name] = tried(ROWS[name], wheel)
            if flags.result:
                flags.result.write_text(json.dumps(results, indent=1))
    print(table(results))
    if flags.write:
        pages.write_part("versions", table(results))
    sys.exit(not all(map(passed, results.values())))


if __name__ == "__main__":
    main()
