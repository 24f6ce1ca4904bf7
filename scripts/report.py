"""Shows what pruning saves in a model, layer by layer.

python scripts/report.py --model=logs/model.keras --html=report.html
"""

import command_line  # isort: split

import sys
from pathlib import Path

from absl import flags

FLAGS = flags.FLAGS

command_line.group("Files")
flags.DEFINE_string("model", None, "A `.keras` file, pruned or not; must be given.")
flags.DEFINE_string("html", None, "Writes a page with pictures here.")
flags.DEFINE_string("csv", None, "Writes a line for each layer here.")
flags.DEFINE_string("markdown", None, "Writes a table here.")
flags.DEFINE_string("json", None, "Writes all of it here.")
command_line.check_paths()
command_line.require("model", "FILE, a `.keras` file")
command_line.check_apart("model", "html", "csv", "markdown", "json")

if __name__ == "__main__":  # before the imports that take seconds
    command_line.start("Nothing is half-written; the same command starts anew.")
with command_line.silent():
    import snip_tf
    from snip_tf.files import whole_file, write_json


def main() -> None:
    """Reads a model, prints its report, and writes it in the forms asked for."""
    try:
        report = snip_tf.report(command_line.load_model(FLAGS.model))
        report.print()
        if FLAGS.html:
            report.write_html(FLAGS.html)
        if FLAGS.csv:
            _write(FLAGS.csv, report.to_csv())
        if FLAGS.markdown:
            _write(FLAGS.markdown, report.to_markdown())
        if FLAGS.json:
            write_json(FLAGS.json, report.to_dict())
    except (OSError, TypeError, ValueError, ImportError) as error:
        sys.exit(command_line.one_line(error))


def _write(path: str, text: str) -> None:
    with whole_file(Path(path)) as partial:
        partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
