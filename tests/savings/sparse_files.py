"""The parts of a file of `format="sparse"`, read and written apart from the library."""

import hashlib
import json
import zlib

import numpy as np

MAGIC = b"snip_tf sparse model 1\n"


def parts(path):
    """The header of a file, and its data."""
    content = path.read_bytes()[len(MAGIC) : -32]
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(zlib.decompress(content[8:end])), content[end:]


def write(path, header, data=b"", length=None):
    """A file whose hash is right."""
    if not isinstance(header, bytes):
        header = zlib.compress(json.dumps(header).encode())
    length = len(header) if length is None else length
    content = MAGIC + length.to_bytes(8, "little") + header + data
    path.write_bytes(content + hashlib.sha256(content).digest())


def codings(path):
    """The codings of the weights."""
    return [entry["coding"] for entry in parts(path)[0]["weights"]]


def arrays(path):
    """The weights, read number by number as the format is described."""
    header, data = parts(path)
    found = []
    for entry in header["weights"]:
        pieces = []
        for size in entry["bytes"]:
            pieces.append(data[:size])
            data = data[size:]
        dtype = np.dtype(entry["dtype"])
        numbers = np.frombuffer(pieces[-1], dtype)
        if entry["coding"] != "all":
            array = np.zeros(int(np.prod(entry["shape"])), dtype)
            places = _PLACES[entry["coding"]](zlib.decompress(pieces[0]))
            array[places] = numbers
            numbers = array
        found.append(numbers.reshape(entry["shape"]))
    assert not data
    return found


def _by_bits(data):
    bits = "".join(f"{byte:08b}" for byte in data)
    return [place for place, bit in enumerate(bits) if bit == "1"]


def _by_gaps(data):
    places, place = [], 0
    for byte in data:
        place += byte
        if byte < 255:
            places.append(place)
            place += 1
    return places


_PLACES = {"bits": _by_bits, "gaps": _by_gaps}
