"""Marks tests of what older versions of Keras lack, or do wrong themselves."""

import keras
import pytest
from packaging.version import Version


def since(version):
    """Skips a test with a Keras before this version, the first that can."""
    lacks = Version(keras.__version__) < Version(version)
    return pytest.mark.skipif(lacks, reason=f"Keras can since {version}")
