"""Files that are never half-written, and refused when they are damaged."""

from snip_tf.files.reading import DAMAGE, inflate, named_damage, read_json
from snip_tf.files.writing import (
    PARTIAL,
    check_folder,
    locked,
    whole_file,
    whole_folder,
    write_json,
)

__all__ = [
    "DAMAGE",
    "PARTIAL",
    "check_folder",
    "inflate",
    "locked",
    "named_damage",
    "read_json",
    "whole_file",
    "whole_folder",
    "write_json",
]
