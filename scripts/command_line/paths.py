"""Checks flags that name files and folders."""

import os
import stat
from collections.abc import Callable, Mapping

from absl import flags

FLAGS = flags.FLAGS

_WRITTEN = ("path", "html", "csv", "markdown", "json")
# All flags that name files and folders.
PATHS = ("data_dir", "logdir", "outdir", "model", *_WRITTEN)


def check_paths() -> None:
    """Registers checks of all flags with these names."""
    _check(
        ("data_dir",),
        _or_elsewhere(os.path.isdir),
        "expected an existing folder; create it first (mkdir) to download into it",
    )
    _check(
        ("logdir", "outdir"),
        _may_be_folder,
        "expected the name of a folder, which is made if it does not exist (not an "
        "address, such as gs://bucket)",
    )
    _check(("model",), _or_elsewhere(os.path.exists), "expected an existing file")
    _check(_WRITTEN, _is_in_folder, "expected a file in an existing folder")


def _check(
    names: tuple[str, ...], is_right: Callable[[str], bool], expected: str
) -> None:
    def is_right_if_given(path: str | None) -> bool:
        return path is None or is_right(os.path.expanduser(path))

    for name in set(names) & set(FLAGS):
        flags.register_validator(name, is_right_if_given, expected)


def check_apart(*names: str) -> None:
    """Registers a check that no two of these flags name the same file."""
    flags.register_multi_flags_validator(
        names, _are_apart, "expected a different file for each"
    )


def _are_apart(given: Mapping[str, str | None]) -> bool:
    paths = [os.path.expanduser(path) for path in given.values() if path]
    # (A pipe or a device such as /dev/stdout takes several.)
    files = [path for path in paths if os.path.isfile(path) or not os.path.exists(path)]
    return len(set(map(os.path.realpath, files))) == len(files)


def _or_elsewhere(exists: Callable[[str], bool]) -> Callable[[str], bool]:
    """Also accepts what TensorFlow may read elsewhere, such as gs://bucket."""
    return lambda path: "://" in path or exists(path)


def _may_be_folder(path: str) -> bool:
    """Returns whether a folder exists or could be made; an address is not a folder."""
    if "://" in path:
        return False
    try:
        path.encode()  # TensorFlow only takes names in UTF-8
        return bool(path) and stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return not os.path.islink(path)
    except (OSError, ValueError):  # a name too long, a file where a folder should be
        return False


def _is_in_folder(path: str) -> bool:
    return bool(path) and os.path.isdir(os.path.dirname(path) or ".")
