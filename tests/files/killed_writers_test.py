import errno
import os
import signal
import time

import pytest

from snip_tf.files import (
    whole_file,
    whole_folder,
    write_json,
    writing,
)
from tests.files.folders import no_exchange, texts, write_folder


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
        monkeypatch.setattr(writing, "_boot", lambda: "01234567")
    else:

        def locked(folder):
            raise OSError(errno.ENOTSUP, "no locks on this disk")

        monkeypatch.setattr(writing, "locked", locked)
    write_json(tmp_path / "b", 1)
    assert left.exists()
    long_ago = time.time() - 25 * 60 * 60
    for path in (left / "a", left):
        os.utime(path, (long_ago, long_ago))
    write_json(tmp_path / "b", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def plant(parent):
    """A folder as a killed writer leaves it."""
    folder = parent / f"{writing.PARTIAL}{writing._boot()}-abcdefgh"
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
    if writing._rename_exchange is not no_exchange:
        assert texts(path) == ["new"] * 3
    with pytest.raises(OSError, match="full"), whole_folder(path):
        raise OSError("the disk is full")
    finished = renamings == 3 or writing._rename_exchange is not no_exchange
    assert texts(path) == ["new" if finished else "old"] * 3
    assert list(tmp_path.iterdir()) == [path]


def test_the_next_writer_puts_a_folder_back(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_rename_exchange", no_exchange)
    write_folder(tmp_path / "a", "old")
    killed(write_until(2, tmp_path / "a", "new"))
    assert not (tmp_path / "a").exists()
    write_json(tmp_path / "b", 1)
    assert texts(tmp_path / "a") == ["old"] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_second_rename_that_fails_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_rename_exchange", no_exchange)
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
