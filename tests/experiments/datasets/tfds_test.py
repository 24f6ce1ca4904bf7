import importlib
import json
import shutil

import numpy as np
import pytest

from snip_tf.experiments.datasets.tfds import load_arrays

TRAIN = "mnist-train.tfrecord-00000-of-00001"
TEST = "mnist-test.tfrecord-00000-of-00001"
INFO = "dataset_info.json"

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture
def folder(prepared, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(prepared, tmp_path / "copy")


def change(folder, name, new_content):
    [path] = folder.glob(f"mnist/*/{name}")
    path.write_bytes(new_content(path.read_bytes()))


def sorted_rows(inputs, labels):
    rows = np.column_stack([inputs.reshape(len(inputs), -1), labels])
    return rows[np.lexsort(rows.T)]


def test_reads_what_was_prepared(prepared, images_and_labels):
    arrays = load_arrays("mnist", str(prepared))
    assert list(arrays) == ["train", "test"]
    for split, (inputs, labels) in arrays.items():
        assert inputs.dtype == np.uint8
        assert inputs.shape[1:] == (28, 28, 1)
        # In the order in which they lie in the files.
        np.testing.assert_array_equal(
            sorted_rows(inputs, labels), sorted_rows(*images_and_labels[split])
        )


def test_gives_the_same_order_each_time(prepared):
    first, second = (load_arrays("mnist", str(prepared)) for _ in range(2))
    np.testing.assert_array_equal(first["train"][0], second["train"][0])


def test_neither_prepared_nor_a_network(tmp_path):
    with pytest.raises(OSError, match="the network is down") as caught:
        load_arrays("mnist", str(tmp_path))
    assert str(tmp_path / "mnist") in str(caught.value)
    assert "--data_dir" in str(caught.value)


def test_makes_no_folder_of_a_mistyped_name(tmp_path):
    with pytest.raises(OSError, match=r"existing folder.*mistyped.*\(mkdir\)"):
        load_arrays("mnist", str(tmp_path / "mistyped"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["DownloadError", "ExtractError"])
def test_a_download_that_fails(tmp_path, monkeypatch, name):
    """These errors of tensorflow-datasets are plain exceptions, no OSError."""
    tfds = pytest.importorskip("tensorflow_datasets")
    download = importlib.import_module("tensorflow_datasets.core.download")
    module = {"DownloadError": download.util, "ExtractError": download.extractor}
    error = getattr(module[name], name)

    def download_and_prepare(builder):
        raise error("HTTP code 503")

    builder = tfds.core.DatasetBuilder
    monkeypatch.setattr(builder, "download_and_prepare", download_and_prepare)
    with pytest.raises(OSError, match="HTTP code 503"):
        load_arrays("mnist", str(tmp_path))


def half(content):
    return content[: len(content) // 2]


def all_but_the_end(content):
    return content[:-3]


def nothing(content):
    return b""


def not_text(content):
    return b"\x00\xff\x80"


def flipped_in_the_middle(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def empty_object(content):
    return b"{}"


@pytest.mark.parametrize("name", [TRAIN, TEST, INFO])
@pytest.mark.parametrize(
    "damage", [half, all_but_the_end, nothing, not_text, flipped_in_the_middle]
)
def test_a_damaged_file(folder, name, damage):
    change(folder, name, damage)
    check_error(folder)


def test_information_without_content(folder):
    change(folder, INFO, empty_object)
    check_error(folder)


def test_information_without_a_split(folder):
    def without_test(content):
        info = json.loads(content)
        info["splits"] = [s for s in info["splits"] if s["name"] != "test"]
        return json.dumps(info).encode()

    change(folder, INFO, without_test)
    check_error(folder)


def test_missing_examples_at_the_end(folder):
    """The file ends where an example does, so nothing in it is wrong."""

    def without_last_record(content):
        start = end = 0
        while end < len(content):
            start = end
            length = int.from_bytes(content[start : start + 8], "little")
            end = start + 8 + 4 + length + 4  # the length, two checksums, the example
        return content[:start]

    change(folder, TRAIN, without_last_record)
    check_error(folder, "39")


def test_a_missing_file(folder):
    [path] = folder.glob(f"mnist/*/{TRAIN}")
    path.unlink()
    check_error(folder)


def check_error(folder, match="cannot be read"):
    """The error names only the folder of this data set, which users may remove."""
    with pytest.raises(OSError, match=match) as caught:
        load_arrays("mnist", str(folder))
    assert str(folder / "mnist") in str(caught.value)
    assert "--data_dir" in str(caught.value)
