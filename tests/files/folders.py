"""Folders of three files that are written whole."""

import errno

from snip_tf.files import whole_folder


def write_folder(path, text):
    with whole_folder(path) as partial:
        partial.mkdir()
        for name in "xyz":
            (partial / name).write_text(text)


def texts(path):
    return [(path / name).read_text() for name in "xyz"]


def no_exchange(one, other):
    raise OSError(errno.EINVAL, "not on this file system")
