"""scripts/train.py in the process of the tests."""

import functools

import pytest

from tests.programs import loaded, run_main


@pytest.fixture(scope="module")
def train():
    with loaded("scripts/train.py") as module:
        yield module


@pytest.fixture(scope="module")
def main(train):
    """The program, called with its flags."""
    return functools.partial(run_main, train)
