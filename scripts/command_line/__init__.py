"""What the programs share: flags in groups, ending by signals, quiet libraries.

It imports nothing slow, so that --help, a wrong flag and Ctrl-C are handled at once: a
program calls `start` after defining its flags, and imports the library after that.
"""

from command_line import early  # isort: split

import glob
import logging
import os

from command_line import ending, output, parsing
from command_line.errors import end_if_failed, exit_on, exit_on_failure
from command_line.help import group
from command_line.literals import default_flags, names
from command_line.logdir import refuse_taken
from command_line.model_file import load_model
from command_line.output import one_line, say, silent
from command_line.parsing import are_seeds, read, require
from command_line.paths import check_apart, check_paths

__all__ = [
    "are_seeds",
    "check_apart",
    "check_paths",
    "default_flags",
    "early",
    "end_if_failed",
    "exit_on",
    "exit_on_failure",
    "group",
    "load_model",
    "names",
    "one_line",
    "read",
    "refuse_taken",
    "require",
    "say",
    "silent",
    "start",
]

# Seconds in which an interrupted program may unwind, before it is killed.
_GRACE = 2.0


def start(after_interrupt: str, grace: float = _GRACE) -> None:
    """Reads the flags, or ends the program with a message about a wrong one.

    Args:
        after_interrupt: what to do after an interruption, a sentence.
        grace: seconds in which the program may then end by itself.
    """
    ending.by_signals(after_interrupt, grace)
    output.watch()
    parsing.parse()
    # Show warnings of the libraries, and errors of CUDA only if there is a GPU.
    level = "2" if glob.glob("/dev/nvidia[0-9]*") else "3"
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever the environment says
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", level)
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.WARNING)
