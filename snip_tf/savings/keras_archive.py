"""Writes Keras' own archive, compressed."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import keras

from snip_tf.files import whole_file
from snip_tf.savings.configurations import named_configurations


def save_compressed(model: keras.Model, path: Path) -> int:
    """Writes Keras' archive, compressed; returns the bytes that Keras' own takes.

    Keras stores the parts of its archives uncompressed.
    """
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "plain.keras"
        with named_configurations(model, "keras"):
            model.save(saved)
        with (
            whole_file(path) as partial,
            zipfile.ZipFile(saved) as plain,
            zipfile.ZipFile(
                partial, "w", compression=zipfile.ZIP_DEFLATED, compresslevel=9
            ) as compressed,
        ):
            for part in plain.infolist():
                compressed.writestr(part.filename, plain.read(part))
        return saved.stat().st_size
