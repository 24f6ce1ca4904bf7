"""Writes files and folders that are never half-written."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from snip_tf.files.reading import is_device

PARTIAL = ".partial-"  # prefix of the temporary folders that are written first
_OURS = re.compile(re.escape(PARTIAL) + "(?P<boot>[0-9a-f]{8})-[a-z0-9_]{8}")
_NEW, _REPLACED = "new", "replaced"  # inside such a folder, if a folder is written
_SECONDS_UNTIL_STALE = 24 * 60 * 60
# Another writer's folder appeared or vanished between two operations on a path.
_CAME_OR_WENT = (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST)


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a path to write to, and moves that file to `path` once the body has ended.

    At any time, even after a kill, `path` holds the old file or the new one. If the
    body fails, for example on a full disk, what it wrote is removed, and `path` is
    unchanged. With several writers at a time, the last one's file remains.

    Links are followed, as `open` does; the owner and the mode of a file that is
    replaced are kept. (Hard links to it keep the old content.)

    Raises:
        FileNotFoundError: if the folder of `path` does not exist.
        OSError: if `path` is a folder, a loop of links, or may not be written.
    """
    path = Path(path)
    if is_device(path):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / path.name
            with open(Path(folder) / path.name, "rb") as file, open(path, "wb") as pipe:
                shutil.copyfileobj(file, pipe)
        return
    target = _target(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with _folder_beside(target) as folder:
        partial = folder / path.name  # not that of the target: Keras goes by the suffix
        yield partial
        _flush(partial)
        _take_after(target, partial)
        os.replace(partial, target)
        _flush_folder(target.parent)


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Does the same for a folder, which replaces the whole one at `path`.

    Where the system cannot exchange two folders in one step, a kill in the middle may
    leave none at `path`; the next call of these functions in the same folder puts the
    old one back first.
    """
    target = _target(Path(path))
    if target.is_file():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    with _folder_beside(target) as folder:
        partial = folder / _NEW / target.name
        partial.parent.mkdir()
        yield partial
        for part in partial.rglob("*"):
            if part.is_file():
                _flush(part)
        _take_after(target, partial)
        _move_folder(partial, target)
        _flush_folder(target.parent)


def check_folder(path: Path) -> None:
    """Raises a FileNotFoundError unless the folder of `path` exists."""
    if not path.parent.is_dir():
        raise FileNotFoundError(
            errno.ENOENT, "Expected an existing folder. Received", str(path.parent)
        )


def _target(path: Path) -> Path:
    """Returns where `path` leads through links; raises if that cannot be written."""
    target = Path(os.path.realpath(path))
    check_folder(target)
    as_effective = os.access in os.supports_effective_ids
    while there := _device_and_inode(target):
        if os.access(target, os.W_OK, effective_ids=as_effective):
            break
        # Else another writer has exchanged it in between: look again.
        if there == _device_and_inode(target):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return target


def _device_and_inode(path: Path) -> tuple[int, int] | None:
    """Returns what distinguishes a path's content from another, or None without any."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """Makes a folder that only this user can enter, and removes it in the end.

    It is on the same disk as `target`, so that its contents can be renamed to that.
    """
    _remove_stale(target.parent)
    with contextlib.ExitStack() as stack:
        while True:
            folder = _make_folder(target)
            try:
                stack.enter_context(locked(folder))
            except (BlockingIOError, FileNotFoundError):
                continue  # another writer has just removed it as stale
            except (OSError, ImportError):
                pass  # locking is not supported: `_remove_stale` goes by age
            if folder.exists():
                break
        stack.callback(_remove, folder)  # before it is unlocked
        yield folder


def _make_folder(target: Path) -> Path:
    try:
        name = tempfile.mkdtemp(prefix=f"{PARTIAL}{_boot()}-", dir=target.parent)
    except OSError as error:
        # Names the user's path, not the temporary one.
        raise OSError(error.errno, error.strerror, str(target)) from error
    return Path(name)


@functools.cache
def _boot() -> str:
    """Returns an id of the running system, which alone knows if its writers are alive.

    Another machine may share the disk, but not the locks.
    """
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:  # not Linux
        name = str(uuid.getnode())
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def _remove_stale(parent: Path) -> None:
    """Removes what killed writers have left in a folder."""
    with contextlib.suppress(OSError):  # a folder may be writable and not readable
        for name in os.listdir(parent):
            found = _OURS.fullmatch(name)
            if found:
                with contextlib.suppress(OSError):
                    _remove_if_stale(parent / name, found["boot"] == _boot())


def _remove_if_stale(folder: Path, is_of_this_boot: bool) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or not _is_of_this_user(found):
        return  # not ours
    changed = max(part.lstat().st_mtime for part in (folder, *folder.rglob("*")))
    is_stale = time.time() - changed > _SECONDS_UNTIL_STALE
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
            is_stale = is_stale or is_of_this_boot
        except BlockingIOError:
            return  # its writer is alive
        except (OSError, ImportError):
            pass  # locking is not supported
        _put_back(folder)
        if is_stale:
            _remove(folder)


def _is_of_this_user(found: os.stat_result) -> bool:
    """Returns whether a folder is this user's; others may have planted it."""
    return not hasattr(os, "geteuid") or found.st_uid == os.geteuid()


def _remove(folder: Path) -> None:
    _put_back(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _put_back(folder: Path) -> None:
    """Undoes the first of two renames if the second did not follow."""
    if (folder / _REPLACED).is_symlink():
        return  # planted, to have files of another folder moved here
    for replaced in (folder / _REPLACED).glob("*"):
        if not os.path.lexists(folder.parent / replaced.name):
            try:
                os.replace(replaced, folder.parent / replaced.name)
            except OSError as error:
                if error.errno not in _CAME_OR_WENT:
                    raise


def _move_folder(new: Path, target: Path) -> None:
    """Moves a folder to a path; an existing one is moved next to the new one's path."""
    while True:
        try:
            if target.is_dir():
                _exchange(new, target)
            else:
                os.replace(new, target)
            return
        except OSError as error:
            if error.errno not in _CAME_OR_WENT or not new.exists():
                raise


def _exchange(new: Path, target: Path) -> None:
    """Exchanges two folders, atomically if the system can."""
    try:
        _rename_exchange(new, target)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):
            raise
        replaced = new.parents[1] / _REPLACED / target.name
        shutil.rmtree(replaced, ignore_errors=True)
        replaced.parent.mkdir(exist_ok=True)
        os.replace(target, replaced)
        os.replace(new, target)


def _rename_exchange(one: Path, other: Path) -> None:
    """Calls Linux' renameat2 with RENAME_EXCHANGE, which Python does not offer."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError) as error:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from error
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(one), None, str(other))


def _take_after(old: Path, new: Path) -> None:
    """Copies the owner and mode of what is replaced, if anything."""
    with contextlib.suppress(FileNotFoundError):  # another writer may move it away
        owner = old.stat()
        for ids in ((-1, owner.st_gid), (owner.st_uid, -1)):
            with contextlib.suppress(PermissionError, AttributeError):  # not on Windows
                os.chown(new, *ids)
        shutil.copystat(old, new)
        os.utime(new)


def _flush(path: Path) -> None:
    """Waits until a file is on disk, since a power cut could leave an empty one."""
    if os.name == "nt":
        return  # this system flushes only files that are open for writing
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(path: Path) -> None:
    """Does the same for the entries of a folder, where the file system can."""
    with contextlib.suppress(OSError):
        _flush(path)


def write_json(path: str | os.PathLike, value: object) -> None:
    """Writes a JSON file."""
    text = json.dumps(value, indent=1) + "\n"
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Holds the lock of a folder, which keeps out other processes that ask for it.

    The operating system releases it, however the process ends.

    Raises:
        BlockingIOError: if another process holds it.
    """
    import fcntl  # not available on Windows

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
