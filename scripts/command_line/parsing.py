"""Reads the flags of a program, or ends it with a message about a wrong one."""

import dataclasses
import os
import sys
from typing import Any, TypeVar

from absl import flags

from command_line import help, output, paths

FLAGS = flags.FLAGS

Options = TypeVar("Options", bound=Any)  # a dataclass

_HELP = {"--help", "-help", "-h", "-?", "--helpshort", "--helpfull"}
_required: dict[str, str] = {}


def require(name: str, form: str) -> None:
    """Requires a flag, in the form `--name=form`."""
    _required[name] = form


def are_seeds(values: list[str]) -> bool:
    """Returns whether values are seeds that scripts/train.py takes, at least one."""
    return bool(values) and all(
        # (Python refuses to parse a number with thousands of digits.)
        value.isdecimal() and len(value) < 20 and int(value) < 2**32
        for value in values
    )


def read(kind: type[Options]) -> Options:
    """Returns a dataclass whose fields are flags of the same names."""
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: FLAGS[name].value for name in names})


def parse() -> None:
    """Reads the command line."""
    if _HELP & set(sys.argv[1:]):
        print(help.help_text(), flush=True)
        sys.exit(0)
    try:
        rest = FLAGS(sys.argv)[1:]
    except flags.UnrecognizedFlagError as error:
        _refuse(f"Unknown flag --{error.flagname}.{help.did_you_mean(error.flagname)}")
    except (
        flags.Error,
        UnicodeDecodeError,
    ) as error:  # UnicodeDecodeError: in a --flagfile
        _refuse(f"{error}.")
    for name, form in _required.items():
        if FLAGS[name].value is None:
            _refuse(f"Expected --{name}={form}. Received: none.")
    for name in set(paths.PATHS) & set(FLAGS):
        if path := FLAGS[name].value:  # a shell leaves ~ in --name=~/a
            FLAGS[name].value = os.path.expanduser(path)
    if rest:
        sys.exit(f"Expected flags only, as --name=value. Received: {' '.join(rest)}")


def _refuse(what: str) -> None:
    sys.exit(output.one_line(f"{what} --help shows all flags."))
