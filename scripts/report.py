"""Shows what pruning saves in a model, layer by layer.

python scripts/report.py --model=logs/model.keras --html=report.html
"""

import command_line  # isort: split

import dataclasses
from pathlib import Path

from absl import flags

command_line.group("Files")
flags.DEFINE_string("model", None, "A `.keras` file, pruned or not; must be given.")
flags.DEFINE_string("html", None, "Writes a page with pictures here.")
flags.DEFINE_string("csv", None, "Writes a line for each layer here.")
flags.DEFINE_string("markdown", None, "Writes a table here.")
flags.DEFINE_string("json", None, "Writes the whole report here.")
command_line.check_paths()
command_line.require("model", "FILE, a `.keras` file")
command_line.check_apart("model", "html", "csv", "markdown", "json")

if __name__ == "__main__":  # before the imports that take seconds
    command_line.start("Nothing is half-written; the same command starts anew.")
with command_line.silent():
    import snip_tf
    from snip_tf.files import whole_file, write_json


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags."""

    model: str
    html: str | None
    csv: str | None
    markdown: str | None
    json: str | None


def main() -> None:
    """Reads a model, prints its report, and writes it in the requested forms."""
    options = command_line.read(Options)
    with command_line.exit_on(kinds=(OSError, TypeError, ValueError, ImportError)):
        report = snip_tf.report(command_line.load_model(options.model))
        report.print()
        if options.html:
            report.write_html(options.html)
        if options.csv:
            _write(options.csv, report.to_csv())
        if options.markdown:
            _write(options.markdown, report.to_markdown())
        if options.json:
            write_json(options.json, report.to_dict())


def _write(path: str, text: str) -> None:
    with whole_file(Path(path)) as partial:
        partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
