"""Shows what pruning saves in a model, layer by layer.

python scripts/report.py --model=logs/model.keras --html=report.html
"""

import sys
from pathlib import Path

import keras
from absl import app, flags

import snip_tf
from snip_tf.files import whole_file, write_json

FLAGS = flags.FLAGS

flags.DEFINE_string("model", None, "A `.keras` file, pruned or not.", required=True)
flags.DEFINE_string("html", None, "Writes a page with pictures here.")
flags.DEFINE_string("csv", None, "Writes a line for each layer here.")
flags.DEFINE_string("markdown", None, "Writes a table here.")
flags.DEFINE_string("json", None, "Writes all of it here.")


def main(argv: list[str]) -> None:
    """Reads a model, prints its report and writes it in what forms are asked for."""
    if argv[1:]:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}")
    try:
        report = snip_tf.report(keras.models.load_model(FLAGS.model))
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
        sys.exit(str(error))


def _write(path: str, text: str) -> None:
    with whole_file(Path(path)) as partial:
        partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
