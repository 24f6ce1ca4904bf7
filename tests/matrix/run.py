"""Tries the life of a pruned model on many versions of Keras and its backends.

    python tests/matrix/run.py [--only=NAME ...] [--result=matrix.json]

Each row of versions gets an environment of its own, into which the wheel of this
checkout is installed, and runs `life.py` from an empty folder. What an interpreter or a
package index lacks is a result, too. At the end, a table in Markdown.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The interpreter, the backend, and what is installed before the library.
ROWS: dict[str, tuple[str, str, list[str]]] = {
    "newest": ("3.11", "tensorflow", ["keras", "tensorflow"]),
    "nightly Keras": ("3.11", "tensorflow", ["keras-nightly", "tensorflow"]),
    "3.13, TF 2.20": ("3.11", "tensorflow", ["keras==3.13.*", "tensorflow==2.20.*"]),
    "3.10, TF 2.19": ("3.11", "tensorflow", ["keras==3.10.*", "tensorflow==2.19.*"]),
    "3.8, TF 2.18, NumPy 1.26": (
        "3.11",
        "tensorflow",
        ["keras==3.8.*", "tensorflow==2.18.*", "numpy==1.26.*"],
    ),
    "3.8, TF 2.18, NumPy 2.0": (
        "3.11",
        "tensorflow",
        ["keras==3.8.*", "tensorflow==2.18.*", "numpy==2.0.*"],
    ),
    "newest, Python 3.12": ("3.12", "tensorflow", ["keras", "tensorflow"]),
    "newest, Python 3.13": ("3.13", "tensorflow", ["keras", "tensorflow"]),
    "JAX": ("3.11", "jax", ["keras", "jax"]),
    "PyTorch": ("3.11", "torch", ["keras", "torch==2.13.0"]),
}


def built_wheel(folder: Path) -> Path:
    """Builds the wheel of the checkout."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder]
    subprocess.run([*command, ROOT], check=True)
    [wheel] = folder.glob("*.whl")
    return wheel


def tried(name: str, wheel: Path) -> dict[str, dict[str, str]] | str:
    """Returns what `life.py` says in a new environment, or why there is none."""
    version, backend, packages = ROWS[name]
    interpreter = shutil.which(f"python{version}")
    if interpreter is None:
        return f"no python{version} here"
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder, "venv", "bin", "python")
        for command in (
            [interpreter, "-m", "venv", python.parents[1]],
            [python, "-m", "pip", "install", "-q", *packages],
            [python, "-m", "pip", "install", "-q", wheel],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                return done.stderr.strip().splitlines()[-1]
        empty = Path(folder, "empty")
        empty.mkdir()
        environment = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment |= {"HOME": folder, "PATH": str(python.parent)}
        program = shutil.copy(Path(__file__).with_name("life.py"), empty)
        done = subprocess.run(
            [python, program],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
        )
    lines = done.stdout.splitlines()
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError):
        return done.stderr.strip().splitlines()[-1]


def cell(found: dict[str, str] | None) -> str:
    """Describes the steps of a kind in a few words."""
    if found is None:
        return ""
    failed = [name for name, said in found.items() if said != "passed"]
    if not failed:
        return "passed"
    return f"{len(found) - len(failed)} of {len(found)} (not {', '.join(failed)})"


def table(results: dict[str, dict[str, dict[str, str]] | str]) -> str:
    """Returns the results in Markdown."""
    known = [found for found in results.values() if isinstance(found, dict)]
    columns = list(dict.fromkeys(kind for found in known for kind in found))
    lines = [["versions", *columns], ["---"] * (1 + len(columns))]
    for name, found in results.items():
        if isinstance(found, str):
            lines.append([name, found, *[""] * (len(columns) - 1)])
        else:
            lines.append([name, *(cell(found.get(kind)) for kind in columns)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=ROWS, help="a row; repeat")
    parser.add_argument("--result", type=Path, help="a JSON file to write")
    flags = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        wheel = built_wheel(Path(folder))
        for name in flags.only or ROWS:
            print(f"{name} ...", file=sys.stderr, flush=True)
            results[name] = tried(name, wheel)
            if flags.result:
                flags.result.write_text(json.dumps(results, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
