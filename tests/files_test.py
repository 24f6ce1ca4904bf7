import json

import pytest

from snip_tf.files import whole_file, whole_folder, write_json


def test_writes_a_file_or_nothing(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(OSError, match="full"), whole_file(path) as partial:
        partial.write_text("half")
        raise OSError("the disk is full")
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_writes_a_folder_or_nothing(tmp_path):
    path = tmp_path / "a"
    for text in ("first", "second"):
        with whole_folder(path) as partial:
            partial.mkdir()
            (partial / f"{text}.txt").write_text(text)
        assert [part.name for part in path.iterdir()] == [f"{text}.txt"]
    with pytest.raises(OSError, match="full"), whole_folder(path) as partial:
        partial.mkdir()
        raise OSError("the disk is full")
    assert [part.name for part in path.iterdir()] == ["second.txt"]
    assert list(tmp_path.iterdir()) == [path]


def test_files_of_others_stay_and_a_folder_must_be_there(tmp_path):
    other = tmp_path / "partial-a.json"
    other.write_text("mine")
    write_json(tmp_path / "a.json", 1)
    assert other.read_text() == "mine"
    with pytest.raises(FileNotFoundError, match=r"folder that is there.*no/such"):
        write_json(tmp_path / "no" / "such" / "a.json", 1)
