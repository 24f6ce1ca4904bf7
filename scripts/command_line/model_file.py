"""Loads the model in a file that a user names."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def load_model(path: str) -> keras.Model:
    """Returns the model in a `.keras` file.

    Raises:
        ValueError: if it holds no model; names the file.
    """
    # After the flags are read, since it takes seconds.
    import keras
    import tensorflow as tf

    from snip_tf.files import named_damage

    with named_damage(path, "a .keras file"):
        try:
            model = keras.models.load_model(path)
        except (TypeError, ValueError, tf.errors.OpError) as error:
            # Keras states the problem after whole nested configurations.
            words = str(error).rpartition("Exception encountered: ")[2]
            raise ValueError(textwrap.shorten(words, 500)) from error
        if not isinstance(model, keras.Model):
            raise ValueError(f"it holds a {type(model).__name__}, not a model")
        return model
