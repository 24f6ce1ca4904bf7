import contextlib
import json
import os
import stat
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from snip_tf.files import (
    read_json,
    whole_file,
    whole_folder,
    write_json,
    writing,
)
from tests.files.folders import texts, write_folder


def test_writes_a_file_or_nothing(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(OSError, match="full"), whole_file(path) as partial:
        partial.write_text("half")
        raise OSError("the disk is full")
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("either_way")
def test_writes_a_folder_or_nothing(tmp_path):
    path = tmp_path / "a"
    for text in ("first", "second"):
        write_folder(path, text)
        assert texts(path) == [text] * 3
    with pytest.raises(OSError, match="full"), whole_folder(path) as partial:
        partial.mkdir()
        raise OSError("the disk is full")
    assert texts(path) == ["second"] * 3
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform != "linux", reason="a system call of Linux")
def test_linux_exchanges_folders_in_one_step(tmp_path):
    write_folder(tmp_path / "a", "a")
    write_folder(tmp_path / "b", "b")
    writing._rename_exchange(tmp_path / "a", tmp_path / "b")
    assert texts(tmp_path / "a") == ["b"] * 3
    assert texts(tmp_path / "b") == ["a"] * 3
    with pytest.raises(FileNotFoundError, match="none"):
        writing._rename_exchange(tmp_path / "a", tmp_path / "none")


def test_other_files_stay_and_a_folder_must_exist(tmp_path):
    own, folder, link = (
        tmp_path / f".partial-{name}.json" for name in ("file", "folder", "link")
    )
    own.write_text("mine")
    folder.mkdir()
    (tmp_path / "precious").write_text("mine")
    link.symlink_to(tmp_path / "precious")
    for name in ("file", "folder", "link"):
        path = tmp_path / f"{name}.json"
        write_json(path, 1)
        assert read_json(path) == 1
        assert not path.is_symlink()
    assert own.read_text() == (tmp_path / "precious").read_text() == "mine"
    assert folder.is_dir()
    assert link.is_symlink()
    with pytest.raises(FileNotFoundError, match=r"existing folder.*no/such"):
        write_json(tmp_path / "no" / "such" / "a.json", 1)


@pytest.mark.parametrize("name", ["a" * 250, "é" * 125, "new", "replaced"])
@pytest.mark.usefixtures("either_way")
def test_any_name(tmp_path, name):
    for value in (1, 2):
        write_json(tmp_path / name, value)
        assert read_json(tmp_path / name) == value
    (tmp_path / name).unlink()
    for text in "ab":
        write_folder(tmp_path / name, text)
        assert texts(tmp_path / name) == [text] * 3
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_file_is_written_under_its_own_name(tmp_path):
    """Keras goes by the ending."""
    with whole_file(tmp_path / "a.weights.h5") as partial:
        partial.touch()
        assert partial.name == "a.weights.h5"
        assert stat.S_IMODE(partial.parent.stat().st_mode) == 0o700
    (tmp_path / "latest.keras").symlink_to("blob")
    with whole_file(tmp_path / "latest.keras") as partial:
        partial.write_text("new")
        assert partial.name == "latest.keras"
    assert (tmp_path / "blob").read_text() == "new"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask", "either_way")
def test_keeps_the_mode_of_what_it_replaces(tmp_path):
    write_json(tmp_path / "a", 1)
    assert mode(tmp_path / "a") == 0o640
    (tmp_path / "a").chmod(0o604)
    os.utime(tmp_path / "a", (0, 0))
    write_json(tmp_path / "a", 2)
    assert mode(tmp_path / "a") == 0o604
    assert (tmp_path / "a").stat().st_mtime > 0
    write_folder(tmp_path / "b", "x")
    assert mode(tmp_path / "b") == 0o750
    (tmp_path / "b").chmod(0o700)
    write_folder(tmp_path / "b", "y")
    assert mode(tmp_path / "b") == 0o700
    assert mode(tmp_path / "b" / "x") == 0o640


@pytest.mark.skipif(os.name == "nt" or os.getuid(), reason="only root can give away")
def test_keeps_the_owner_of_what_it_replaces(tmp_path):
    write_json(tmp_path / "a", 1)
    os.chown(tmp_path / "a", 12, 34)
    write_json(tmp_path / "a", 2)
    owner = (tmp_path / "a").stat()
    assert (owner.st_uid, owner.st_gid) == (12, 34)


def test_writes_where_links_lead(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "old").write_text("old")
    monkeypatch.chdir(tmp_path)
    Path("to_old").symlink_to("there/old")
    Path("to_link").symlink_to(tmp_path / "to_old")
    Path("to_new").symlink_to("there/new")
    for link, target in (("to_link", "old"), ("to_old", "old"), ("to_new", "new")):
        write_json(link, link)
        assert read_json(tmp_path / "there" / target) == link
        assert Path(link).is_symlink()
    Path("to_folder").symlink_to("there/folder")
    for text in "ab":
        write_folder("to_folder", text)
        assert texts(tmp_path / "there" / "folder") == [text] * 3
        assert Path("to_folder").is_symlink()
    Path("nowhere").symlink_to("none/new")
    with pytest.raises(FileNotFoundError, match="none"):
        write_json("nowhere", 1)
    for one, other in (("loop", "back"), ("back", "loop")):
        Path(one).symlink_to(other)
    with pytest.raises(OSError, match=r"symbolic links.*loop"):
        write_json("loop", 1)
    with pytest.raises(OSError, match=r"symbolic links.*loop"):
        write_folder("loop", "a")


@pytest.fixture
def for_all():
    """A folder that others than root can reach, too."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@contextlib.contextmanager
def not_as_root():
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_refuses_what_it_may_not_write_before_any_work(for_all):
    path, new = for_all / "a", for_all / "new"
    path.write_text("old")
    path.chmod(0o444)
    with (
        not_as_root(),
        pytest.raises(PermissionError, match=str(path)),
        whole_file(path),
    ):
        pytest.fail("it began to work")
    for_all.chmod(0o555)
    with not_as_root(), pytest.raises(PermissionError, match=str(new)), whole_file(new):
        pytest.fail("it began to work")
    for_all.chmod(0o777)
    assert path.read_text() == "old"


def test_refuses_a_folder_for_a_file_and_the_reverse(tmp_path):
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        write_json(tmp_path, 1)
    (tmp_path / "a").write_text("old")
    with pytest.raises(NotADirectoryError, match="a"):
        write_folder(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"


def test_writes_into_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    found = []
    reader = threading.Thread(
        target=lambda: found.append((tmp_path / "pipe").read_text())
    )
    reader.start()
    write_json(tmp_path / "pipe", 1)
    reader.join()
    assert found == ["1\n"]
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.usefixtures("either_way")
def test_many_write_at_once(tmp_path):
    """Each says that it succeeded, and one of them is found, whole."""
    path, folder, errors = tmp_path / "file", tmp_path / "folder", []
    contents = [str(number) * 100_000 for number in range(4)]

    def write(content):
        try:
            for _ in range(10):
                write_json(path, content)
                write_folder(folder, content)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(c,)) for c in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert not path.exists() or read_json(path) in contents
    assert not errors
    found = texts(folder)
    assert found[0] in contents
    assert found == [found[0]] * 3
    assert sorted(tmp_path.iterdir()) == [path, folder]
