from pathlib import Path

import numpy as np
import pytest

from snip_tf.checks import (
    check_bool,
    check_callable,
    check_count,
    check_number,
    check_one_of,
    check_path,
    check_paths,
    check_seed,
    check_signature,
    near_misses,
)


def test_valid_arguments_pass():
    check_one_of("scope", "layer", ("global", "layer"))
    check_number("rate", 0.5, above=0, below=1)
    check_number("rate", 0, least=0)
    check_number("rate", np.float32(0.5), above=0)
    check_number("rate", -1)
    check_count("steps", 1)
    check_count("steps", np.int64(0), least=0)
    for seed in (None, 0, np.uint8(3)):
        check_seed(seed)
    check_signature("include", lambda path, variable: True, ("path", "variable"))
    check_signature("include", dict.get, ("path", "variable"))
    check_paths(["a"], ["a", "b"], "The paths")
    check_bool("training", False)
    check_bool("training", np.True_)
    check_callable("print_fn", print)
    for path in ("a", b"a", Path("a")):
        check_path(path)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("layers", ValueError),
        ("", ValueError),
        (None, TypeError),
        (3, TypeError),
        (["layer"], TypeError),
    ],
)
def test_one_of(value, kind):
    words = f"`scope` to be one of 'global', 'layer'. Received: scope={value!r}"
    with pytest.raises(kind) as error:
        check_one_of("scope", value, ("global", "layer"))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("limits", "value", "expected"),
    [
        ({"above": 0}, 0, "a number above 0"),
        ({"least": 0}, -0.1, "a number, 0 or more"),
        ({"least": 0, "below": 1}, 1.0, "a number, 0 or more and below 1"),
        ({"above": 0, "below": 1}, np.float64(1), "a number above 0 and below 1"),
        ({}, float("nan"), "a number"),
        ({"least": 0}, float("inf"), "a number, 0 or more"),
    ],
)
def test_a_number_beyond_its_limits(limits, value, expected):
    with pytest.raises(ValueError) as error:
        check_number("rate", value, **limits)
    assert f"`rate` to be {expected}. Received: rate={value!r}" in str(error.value)


@pytest.mark.parametrize("value", ["1", None, True, [1], 1j])
def test_what_is_no_number(value):
    for check in (check_number, check_count):
        with pytest.raises(TypeError) as error:
            check("rate", value)
        received = f"Received: rate={value!r} of type {type(value).__name__}"
        assert received in str(error.value)


@pytest.mark.parametrize(("value", "least"), [(0, 1), (-1, 0), (np.int32(1), 2)])
def test_a_count_that_is_too_small(value, least):
    words = f"`steps` to be a whole number, {least} or more. Received: steps={value}"
    with pytest.raises(ValueError, match=words):
        check_count("steps", value, least)


@pytest.mark.parametrize(
    ("seed", "kind"), [(-1, ValueError), (0.5, TypeError), (True, TypeError)]
)
def test_a_seed(seed, kind):
    with pytest.raises(kind, match="`seed` to be a whole number, 0 or more, or None"):
        check_seed(seed)


def test_a_function_of_other_arguments():
    with pytest.raises(TypeError, match=r"function of \(path, variable\)"):
        check_signature("include", lambda path: True, ("path", "variable"))


def test_near_misses():
    known = ["conv/kernel", "head/kernel"]
    assert near_misses("conv/kernels", known) == (
        "Did you mean 'conv/kernel' or 'head/kernel'?"
    )
    assert near_misses("zzz", known) == (
        "The weight paths are: conv/kernel, head/kernel"
    )
    with pytest.raises(ValueError, match=r"The key must be .*'zzz', which the model"):
        check_paths(["conv/kernel", "zzz"], known, "The key")


@pytest.mark.parametrize("value", [None, 1, np.arange(2)])
def test_what_is_no_boolean_no_callable_and_no_path(value):
    received = f"={value!r} of type {type(value).__name__}"
    for check in (check_bool, check_callable):
        with pytest.raises(TypeError) as error:
            check("name", value)
        assert f"Received: name{received}" in str(error.value)
    with pytest.raises(TypeError) as error:
        check_path(value)
    assert f"Received: path{received}" in str(error.value)
