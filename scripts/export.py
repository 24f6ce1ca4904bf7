"""Writes a pruned model to a file in which its zeros cost little.

python scripts/export.py --model=logs/model.keras --path=small.tflite --format=litert
python scripts/export.py --model=logs/model.keras --path=small.keras --nocompact
"""

import command_line  # isort: split

import dataclasses
from typing import Literal

from absl import flags

command_line.group("Files")
flags.DEFINE_string("model", None, "A `.keras` file, pruned or not; must be given.")
flags.DEFINE_string("path", None, "Where to write; must be given.")
command_line.group("How")
FORMATS = command_line.names("savings/export.py", "FORMATS")
flags.DEFINE_enum("format", "keras", FORMATS, "See `snip_tf.export`.")
flags.DEFINE_bool("int8", False, "Stores weights in eight bits, with --format=litert.")
flags.DEFINE_bool("compact", True, "Removes dead units first.")
command_line.check_paths()
command_line.check_apart("model", "path")  # the exported model has no masks
command_line.require("model", "FILE, a `.keras` file")
command_line.require("path", "FILE, where to write")

if __name__ == "__main__":  # before the imports that take seconds
    command_line.start("Nothing is half-written; the same command starts anew.")
with command_line.silent():
    import snip_tf
    from snip_tf.savings.export import Format


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags."""

    model: str
    path: str
    format: Format
    int8: bool
    compact: bool


def main() -> None:
    """Reads, compacts and writes."""
    options = command_line.read(Options)
    with command_line.exit_on(kinds=(OSError, TypeError, ValueError, ImportError)):
        model = command_line.load_model(options.model)
        if options.compact:
            model = snip_tf.compact(model)
        int8: Literal[False, "weights"] = "weights" if options.int8 else False
        snip_tf.export(model, options.path, options.format, int8=int8)


if __name__ == "__main__":
    main()
