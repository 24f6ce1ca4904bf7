import contextlib
import errno
import json
import os
import signal
import stat
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

import pytest

from snip_tf import files
from snip_tf.files import (
    inflate,
    named_damage,
    read_json,
    whole_file,
    whole_folder,
    write_json,
)


def test_writes_a_file_or_nothing(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(OSError, match="full"), whole_file(path) as partial:
        partial.write_text("half")
        raise OSError("the disk is full")
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def write_folder(path, text):
    with whole_folder(path) as partial:
        partial.mkdir()
        for name in "xyz":
            (partial / name).write_text(text)


def texts(path):
    return [(path / name).read_text() for name in "xyz"]


def no_exchange(one, other):
    raise OSError(errno.EINVAL, "not on this file system")


@pytest.fixture(params=["exchange", "two renames"])
def either_way(request, monkeypatch):
    """Where the system exchanges two folders at once, and where it cannot."""
    if request.param == "two renames":
        monkeypatch.setattr(files, "_rename_exchange", no_exchange)


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
    files._rename_exchange(tmp_path / "a", tmp_path / "b")
    assert texts(tmp_path / "a") == ["b"] * 3
    assert texts(tmp_path / "b") == ["a"] * 3
    with pytest.raises(FileNotFoundError, match="none"):
        files._rename_exchange(tmp_path / "a", tmp_path / "none")


def test_files_of_others_stay_and_a_folder_must_be_there(tmp_path):
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
    with pytest.raises(FileNotFoundError, match=r"folder that is there.*no/such"):
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


def killed(function):
    """Runs it in a process that is killed where it calls `die`."""

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        try:
            function(die)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "it was not killed"


def write_and_die(write, path):
    def function(die):
        with write(path) as partial:
            partial.mkdir() if write is whole_folder else partial.write_text("half")
            die()

    return function


@pytest.mark.parametrize("write", [whole_file, whole_folder])
def test_the_next_writer_removes_what_a_killed_one_left(tmp_path, write):
    with whole_file(tmp_path / "a") as living:
        living.write_text("a")
        killed(write_and_die(write, tmp_path / "b"))
        left = set(tmp_path.iterdir()) - {living.parent}
        assert len(left) == 1
        write_json(tmp_path / "c", 1)
        assert set(tmp_path.iterdir()) == {living.parent, tmp_path / "c"}
    assert (tmp_path / "a").read_text() == "a"


@pytest.mark.parametrize("why", ["another machine", "no locks"])
def test_what_may_be_alive_elsewhere_stays_for_a_day(tmp_path, monkeypatch, why):
    killed(write_and_die(whole_file, tmp_path / "a"))
    [left] = tmp_path.iterdir()
    if why == "another machine":
        monkeypatch.setattr(files, "_boot", lambda: "01234567")
    else:

        def locked(folder):
            raise OSError(errno.ENOTSUP, "no locks on this disk")

        monkeypatch.setattr(files, "locked", locked)
    write_json(tmp_path / "b", 1)
    assert left.exists()
    long_ago = time.time() - 25 * 60 * 60
    for path in (left / "a", left):
        os.utime(path, (long_ago, long_ago))
    write_json(tmp_path / "b", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def plant(parent):
    """A folder as a killed writer leaves it."""
    folder = parent / f"{files.PARTIAL}{files._boot()}-abcdefgh"
    folder.mkdir()
    return folder


def test_a_planted_link_moves_no_files_of_another_folder(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "precious").write_text("mine")
    (tmp_path / "shared").mkdir()
    (plant(tmp_path / "shared") / "replaced").symlink_to(tmp_path / "home")
    write_json(tmp_path / "shared" / "a", 1)
    assert (tmp_path / "home" / "precious").read_text() == "mine"
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["a"]


@pytest.mark.skipif(os.name == "nt" or os.getuid(), reason="only root can give away")
def test_what_another_user_planted_is_left_alone(tmp_path):
    folder = plant(tmp_path)
    (folder / "replaced" / "b").mkdir(parents=True)
    os.chown(folder, 12, 34)
    write_json(tmp_path / "a", 1)
    assert set(tmp_path.iterdir()) == {folder, tmp_path / "a"}


def write_until(renamings, path, text):
    """Writes a folder and dies before it renames for the last of so many times."""

    def function(die):
        replace, calls = os.replace, []

        def replace_or_die(*arguments):
            calls.append(arguments)
            if len(calls) == renamings:
                die()
            replace(*arguments)

        os.replace = replace_or_die
        write_folder(path, text)
        die()

    return function


@pytest.mark.parametrize("renamings", [1, 2, 3])
@pytest.mark.usefixtures("either_way")
def test_a_kill_between_two_renames_loses_nothing(tmp_path, renamings):
    path = tmp_path / "a"
    write_folder(path, "old")
    killed(write_until(renamings, path, "new"))
    if files._rename_exchange is not no_exchange:
        assert texts(path) == ["new"] * 3
    with pytest.raises(OSError, match="full"), whole_folder(path):
        raise OSError("the disk is full")
    finished = renamings == 3 or files._rename_exchange is not no_exchange
    assert texts(path) == ["new" if finished else "old"] * 3
    assert list(tmp_path.iterdir()) == [path]


def test_whoever_writes_beside_it_puts_a_folder_back(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_rename_exchange", no_exchange)
    write_folder(tmp_path / "a", "old")
    killed(write_until(2, tmp_path / "a", "new"))
    assert not (tmp_path / "a").exists()
    write_json(tmp_path / "b", 1)
    assert texts(tmp_path / "a") == ["old"] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_second_rename_that_fails_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_rename_exchange", no_exchange)
    write_folder(tmp_path / "a", "old")
    replace = os.replace

    def fail(source, target):
        if source.parent.name == "new":
            raise OSError(errno.EIO, "a bad disk")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="a bad disk"):
            write_folder(tmp_path / "a", "new")
    assert texts(tmp_path / "a") == ["old"] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 5000, b'"' + b"x" * 2000]
)
def test_json_that_is_damaged(tmp_path, monkeypatch, content):
    monkeypatch.setattr(files, "_MOST_JSON", 200_000)
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"JSON file\. Received: '{path}', which is"):
        read_json(path)


def test_json_that_is_long_is_not_read(tmp_path):
    path = tmp_path / "a.json"
    with open(path, "wb") as file:
        file.truncate(10**12)
    with pytest.raises(ValueError, match=f"'{path}'.*more than 67,108,864"):
        read_json(path)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match=f"'{path}'.* a pipe or a device"):
            read_json(path)


def test_json_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "a.json")
    with pytest.raises(IsADirectoryError):
        read_json(tmp_path)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (zlib.error("bad block"), "bad block"),
        (MemoryError(), "MemoryError"),
        (RecursionError("too deep"), "too deep"),
        (OSError("Unable to open file"), "Unable"),
        (OSError(errno.EINVAL, "Invalid argument"), "Invalid argument"),
    ],
)
def test_what_libraries_raise_names_the_file(error, words):
    with (
        pytest.raises(ValueError, match=rf"Expected this\. Received: 'a'.*{words}"),
        named_damage("a", "this"),
    ):
        raise error


def test_inflates_no_more_than_there_may_be():
    for content in (b"", b"four"):
        assert inflate(zlib.compress(content), len(content)) == content
    bomb = zlib.compress(bytes(1 << 20))
    for data in (bomb, bomb[:-1], zlib.compress(b"four")[:-1]):
        with pytest.raises(ValueError, match="over 4 bytes"):
            inflate(data, 4)
    with pytest.raises(ValueError, match="over 4 bytes"):
        inflate(zlib.compress(b"four") + b"more", 4)
