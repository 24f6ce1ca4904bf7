"""The examples in the docstrings run, and every public function has one."""

import doctest
import importlib
import pkgutil
import types
from unittest import mock

import keras
import pytest

import snip_tf

MODULES = [
    name for _, name, _ in pkgutil.walk_packages(snip_tf.__path__, prefix="snip_tf.")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, monkeypatch):
    module = importlib.import_module(name)
    # Progress bars are no part of what an example gives.
    monkeypatch.setattr(keras.utils, "Progbar", mock.Mock())
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert failed == 0


@pytest.mark.parametrize("name", snip_tf.__all__)
def test_public_functions_are_documented(name):
    text = getattr(snip_tf, name).__doc__
    assert "Example" in text
    value = getattr(snip_tf, name)
    is_class = isinstance(value, type)
    if isinstance(value, types.ModuleType) or (is_class and issubclass(value, Warning)):
        return
    assert "Args:" in text
    if not is_class and name not in ("export", "summary", "save_masks", "set_masks"):
        assert "Returns:" in text
    if name != "MaskedLayer":
        assert "Raises:" in text
