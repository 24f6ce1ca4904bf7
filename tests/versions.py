"""Marks tests of what some versions of Keras, or some backends, lack or do wrong."""

import keras
import pytest
from packaging.version import Version


def since(version):
    """Skips a test with a Keras before this version, the first that can."""
    lacks = Version(keras.__version__) < Version(version)
    return pytest.mark.skipif(lacks, reason=f"Keras can since {version}")


def on(*backends):
    """Skips a test with other backends of Keras."""
    name = keras.backend.backend()
    return pytest.mark.skipif(name not in backends, reason=f"not on {name}")
