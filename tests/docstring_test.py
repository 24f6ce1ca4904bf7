"""The examples in the docstrings run, and every public function has one."""

import doctest
import importlib
import inspect
import pkgutil
import types
from unittest import mock

import keras
import pytest

import snip_tf

OTHER_BACKENDS = {
    f"snip_tf._backend.{name}"
    for name in {"tensorflow", "jax", "torch"} - {keras.backend.backend()}
}
MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(snip_tf.__path__, prefix="snip_tf.")
    if name not in OTHER_BACKENDS
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, monkeypatch):
    module = importlib.import_module(name)
    # Progress bars are no part of what an example gives.
    monkeypatch.setattr(keras.utils, "Progbar", mock.Mock())
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert failed == 0


@pytest.mark.parametrize("name", snip_tf.__all__)
def test_public_names_are_documented(name):
    named = getattr(snip_tf, name)
    for section in sections(named):
        assert section in named.__doc__, section


def sections(named):
    """What the docstring of a public name must have."""
    is_warning = isinstance(named, type) and issubclass(named, Warning)
    if is_warning or isinstance(named, types.ModuleType):
        return ["."]  # a sentence
    if isinstance(named, type) and "Attributes:" in named.__doc__:
        return ["Attributes:"]  # a value that functions return
    if isinstance(named, type):
        return ["Args:", "Example"]
    returns = inspect.signature(named).return_annotation not in (None, "None")
    return ["Args:", "Raises:", "Example"] + ["Returns:"] * returns
