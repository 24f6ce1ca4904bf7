"""Writes a pruned model to a file in which its zeros cost little.

python scripts/export.py --model=logs/model.keras --path=small.tflite --format=litert
python scripts/export.py --model=logs/model.keras --path=small.keras --nocompact
"""

import sys

import keras
from absl import app, flags

import snip_tf
from snip_tf.exporting import FORMATS

FLAGS = flags.FLAGS

flags.DEFINE_string("model", None, "A `.keras` file, pruned or not.", required=True)
flags.DEFINE_string("path", None, "Where to write.", required=True)
flags.DEFINE_enum("format", "keras", FORMATS, "See `snip_tf.export`.")
flags.DEFINE_bool("int8", False, "Weights of eight bits, with --format=litert.")
flags.DEFINE_bool("compact", True, "Removes what is dead before.")


def main(argv: list[str]) -> None:
    """Reads, compacts and writes."""
    if argv[1:]:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}")
    try:
        model = keras.models.load_model(FLAGS.model)
        if FLAGS.compact:
            model = snip_tf.compact(model)
        snip_tf.export(model, FLAGS.path, FLAGS.format, int8=FLAGS.int8)
    except (OSError, TypeError, ValueError, ImportError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    app.run(main)
