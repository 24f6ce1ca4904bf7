"""A matplotlib figure that a notebook shows.

Imports matplotlib, which is optional: `snip_tf.plots` imports it when it draws.
"""

from __future__ import annotations

import io

import matplotlib.figure


class Figure(matplotlib.figure.Figure):
    """A figure that a notebook shows as the result of a cell, without pyplot.

    pyplot would keep every figure until it is closed.
    """

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()
