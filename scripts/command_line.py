"""What the programs share: flags in groups, an end by signals, quiet libraries.

It imports nothing slow, so that --help, a wrong flag and Ctrl-C are answered at once:
a program calls `start` once its flags are defined, and imports the library after that.
"""

import early  # isort: split

import ast
import contextlib
import difflib
import faulthandler
import glob
import importlib.util
import inspect
import io
import json
import logging
import os
import re
import shutil
import signal
import stat
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from absl import flags

FLAGS = flags.FLAGS

# Seconds in which an interrupted program may unwind, before it is ended wherever it is.
_GRACE = 2.0
# The process that started this one and must outlive it, as snip_tf.training.runs says.
_PARENT = "SNIP_TF_PARENT"
_HELP = {"--help", "-help", "-h", "-?", "--helpshort", "--helpfull"}
# Flags that name files and folders.
_WRITTEN = ("path", "html", "csv", "markdown", "json")
_PATHS = ("data_dir", "logdir", "outdir", "model", *_WRITTEN)
# What other programs call our flags.
_ALSO_CALLED = {
    "arch": ("network", "model", "net"),
    "datasource": ("dataset", "data"),
    "data_dir": ("datadir", "dataset_dir", "path"),
    "logdir": ("output", "outdir", "out", "save_dir", "results"),
    "outdir": ("output", "out", "results"),
    "lr": ("learning_rate", "rate"),
    "train_iterations": ("epochs", "steps", "max_steps", "iterations"),
    "target_sparsity": ("pruning_rate", "density", "ratio"),
    "jobs": ("workers", "processes"),
    "path": ("output", "out"),
}

_groups: list[tuple[str, set[str]]] = []
_required: dict[str, str] = {}
_received: int | None = None  # the signal that ends the program
_swallowed = False  # what it raised
_after = ""
_ending = threading.Lock()
_stderr = 2  # the real one, also where what is written to it is held back
_started = False


def names(path: str, variable: str) -> list[str]:
    """The keys of a literal dict of the library, or the items of a literal tuple.

    `path` is below snip_tf. It is read as text: an import takes seconds.
    """
    spec = importlib.util.find_spec("snip_tf")
    [root] = spec.submodule_search_locations
    for node in ast.parse((Path(root) / path).read_text("utf-8")).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=value)
            ) if name == variable:
                return list(
                    map(ast.literal_eval, getattr(value, "keys", None) or value.elts)
                )
    raise LookupError(f"{path} has no literal {variable}")


def defined_flags(path: Path) -> set[str]:
    """The names of the flags that another program defines, read from its text."""
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    return {
        ast.literal_eval(node.args[0])
        for node in calls
        if node.func.attr.startswith("DEFINE_")
    }


def are_seeds(values: list[str]) -> bool:
    """Whether there are some, and scripts/train.py takes each."""
    return bool(values) and all(
        # (Python refuses to read a number of thousands of digits.)
        value.isdecimal() and len(value) < 20 and int(value) < 2**32
        for value in values
    )


def require(name: str, form: str) -> None:
    """Has the program end unless the flag is given, in the form `--name=form`."""
    _required[name] = form


def group(title: str) -> None:
    """The flags that are defined from here on are shown under this title."""
    _groups.append((title, set(FLAGS)))


def check_paths() -> None:
    """Has the flags that name files and folders checked with the others."""
    for names, is_right, expected in (
        (
            ("data_dir",),
            _or_elsewhere(os.path.isdir),
            "expected an existing folder; for a first download make it before (mkdir)",
        ),
        (
            ("logdir", "outdir"),
            _may_be_folder,
            "expected the name of a folder, which is made where there is none (no "
            "address, as gs://bucket)",
        ),
        (("model",), _or_elsewhere(os.path.exists), "expected an existing file"),
        (_WRITTEN, _is_in_folder, "expected a file in an existing folder"),
    ):
        for name in set(names) & set(FLAGS):
            flags.register_validator(name, _if_given(is_right), expected)


def check_apart(*names: str) -> None:
    """Has no file be given to two of these flags, to be written twice or over."""
    flags.register_multi_flags_validator(
        names, _are_apart, "expected a file of its own for each"
    )


def _are_apart(given: Mapping[str, str | None]) -> bool:
    paths = [os.path.expanduser(path) for path in given.values() if path]
    # (A pipe or a device, as /dev/stdout, takes several.)
    files = [path for path in paths if os.path.isfile(path) or not os.path.exists(path)]
    return len(set(map(os.path.realpath, files))) == len(files)


def _if_given(is_right: Callable[[str], bool]) -> Callable[[str | None], bool]:
    return lambda path: path is None or is_right(os.path.expanduser(path))


def _or_elsewhere(is_there: Callable[[str], bool]) -> Callable[[str], bool]:
    """Also true of what TensorFlow may read elsewhere, as gs://bucket."""
    return lambda path: "://" in path or is_there(path)


def _may_be_folder(path: str) -> bool:
    """Whether there is a folder, or could be; an address would be taken for a name."""
    if "://" in path:
        return False
    try:
        path.encode()  # TensorFlow takes no names that are not UTF-8
        return bool(path) and stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return not os.path.islink(path)
    except (OSError, ValueError):  # a name too long, a file where a folder should be
        return False


def _is_in_folder(path: str) -> bool:
    return bool(path) and os.path.isdir(os.path.dirname(path) or ".")


def start(after_interrupt: str, grace: float = _GRACE) -> None:
    """Reads the flags, or ends the program with what is wrong with them.

    Args:
        after_interrupt: a sentence for who interrupts the program.
        grace: seconds in which it then ends by itself, or is ended.
    """
    global _started, _after
    _started, _after = True, after_interrupt
    _end_by_signals(grace)
    _watch_output()
    _parse()
    # Of the libraries, warnings; of CUDA's errors, those where there is a GPU.
    level = "2" if glob.glob("/dev/nvidia[0-9]*") else "3"
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever else is for Keras elsewhere
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", level)
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.WARNING)


class _Output(io.FileIO):
    """Standard output, which ends the program where it takes nothing more.

    Otherwise the error would be believed to be of a file that is being written.
    """

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[super().write(rest) or 0 :]
        except BrokenPipeError:
            sys.exit(128 + signal.SIGPIPE)  # as `| head` ends others
        except OSError as error:
            sys.exit(f"Cannot write to standard output: {error}. {_after}")
        return len(data)


def _watch_output() -> None:
    """Has prints end the program by themselves, and never fail on a character."""
    if sys.stdout is None or os.name == "nt":
        return
    sys.stdout.flush()
    # Without a buffer: what is in one at the end would be lost in silence.
    sys.stdout = io.TextIOWrapper(
        _Output(1, "w", closefd=False),
        sys.stdout.encoding,
        errors="backslashreplace",
        write_through=True,
    )


def _parse() -> None:
    if _HELP & set(sys.argv[1:]):
        print(_help(), flush=True)
        sys.exit(0)
    try:
        rest = FLAGS(sys.argv)[1:]
    except flags.UnrecognizedFlagError as error:
        sys.exit(
            f"Unknown flag --{error.flagname}.{_did_you_mean(error.flagname)} "
            f"--help shows all flags."
        )
    except (flags.Error, UnicodeDecodeError) as error:  # the second of a --flagfile
        sys.exit(one_line(f"{error}. --help shows all flags."))
    for name, form in _required.items():
        if FLAGS[name].value is None:
            sys.exit(
                f"Expected --{name}={form}. Received: none. --help shows all flags."
            )
    for name in set(_PATHS) & set(FLAGS):
        if FLAGS[name].value:  # a shell leaves the ~ of --name=~/a as it is
            FLAGS[name].value = os.path.expanduser(FLAGS[name].value)
    if rest:
        sys.exit(f"Expected flags only, as --name=value. Received: {' '.join(rest)}")


def _own_flags() -> list[str]:
    """In the order in which they were defined."""
    before = _groups[0][1]
    return [name for name in FLAGS if name not in before]


def _help() -> str:
    """What the program does, then its flags by group."""
    width = min(shutil.get_terminal_size().columns, 100)
    lines = [inspect.getdoc(sys.modules["__main__"]) or ""]
    ends = [before for _, before in _groups[1:]] + [set(FLAGS)]
    for (title, before), end in zip(_groups, ends, strict=True):
        lines += ["", f"{title}:"]
        for name in (n for n in _own_flags() if n in end - before):
            text, value = _about(FLAGS[name])
            lines.append(
                f"  --[no]{name}" if FLAGS[name].boolean else f"  --{name}={value}"
            )
            lines += textwrap.wrap(
                text,
                width,
                initial_indent=" " * 6,
                subsequent_indent=" " * 6,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def _about(flag: flags.Flag) -> tuple[str, str]:
    """What it is for, with the values it may have, and its default."""
    text, value = " ".join(flag.help.split()), (flag.default_as_str or "").strip("'")
    if isinstance(flag, flags.EnumFlag):
        known = flag.parser.enum_values
        text = f"{text.partition('>: ')[2]} One of {', '.join(known)}."
    if flag.boolean and flag.default:
        text += " On by default."
    return text, value


def _did_you_mean(unknown: str) -> str:
    """Flags that share a word with it, or are spelled alike."""
    unknown = unknown.replace("-", "_").lower()
    own = _own_flags()
    words = set(unknown.split("_"))
    near = difflib.get_close_matches(unknown, own, 3)
    near += [name for name in own if unknown in _ALSO_CALLED.get(name, ())]
    near += [name for name in own if words & set(name.split("_"))]
    chosen = [f"--{name}" for name in dict.fromkeys(near)][:3]
    return f" Did you mean {' or '.join(chosen)}?" if chosen else ""


def refuse_taken(logdir: Path, chosen: Mapping[str, object]) -> None:
    """Ends the program if another run has the folder, or it holds one of other flags.

    The run itself checks this, too. But that is after TensorFlow and data are loaded.
    """
    if not logdir.is_dir() or os.environ.get("TF_CONFIG"):  # whose workers share it
        return
    if _is_locked(logdir):
        sys.exit(
            f"Expected --logdir to be free. Received: {logdir}, where another process "
            f"is training now. Wait for it, or name another --logdir."
        )
    if not (logdir / "flags.json").is_file():
        return
    try:
        earlier = json.loads((logdir / "flags.json").read_text())
    except (OSError, ValueError, RecursionError):
        return  # of which the run says what is wrong
    if not isinstance(earlier, dict):
        return
    different = [
        f"--{name} was {earlier.get(name)!r} there and is {chosen.get(name)!r} now"
        for name in sorted(earlier.keys() | chosen.keys())
        if earlier.get(name) != chosen.get(name)
    ]
    if different and os.path.exists(logdir / "checkpoint.keras"):
        sys.exit(
            one_line(
                f"Expected --logdir to be new, or to hold a run with the same flags to "
                f"continue. Received: {logdir}, where {'; '.join(different)}. Name "
                f"another --logdir."
            )
        )


def _is_locked(folder: Path) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return False  # of which the run says what is wrong
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def load_model(path: str) -> Any:
    """The model in a `.keras` file; a ValueError that names it where it holds none."""
    # Once the flags are read: it takes seconds.
    import keras
    import tensorflow as tf

    from snip_tf.files import named_damage

    with named_damage(path, "a .keras file"):
        try:
            model = keras.models.load_model(path)
        except (TypeError, ValueError, tf.errors.OpError) as error:
            # Keras says what is wrong behind whole configs, one within the other.
            words = str(error).rpartition("Exception encountered: ")[2]
            raise ValueError(textwrap.shorten(words, 500)) from error
        if not isinstance(model, keras.Model):
            raise ValueError(f"it holds a {type(model).__name__}, and no model")
        return model


def one_line(text: object) -> str:
    """Words of others, as of a library's error, without line ends and escape codes."""
    return " ".join(plain(text).split())


def plain(text: object) -> str:
    """Without what moves a terminal's cursor or colours it."""
    text = re.sub(
        r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?)", "", str(text)
    )
    return re.sub(r"[^\S\n\t ]|[\x00-\x08\x0e-\x1f\x7f-\x9f]", " ", text)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Holds back what libraries write to stderr, unless the body fails.

    TensorFlow's C++ logs before it has read TF_CPP_MIN_LOG_LEVEL; with 0 all is shown.
    """
    global _stderr
    wanted = os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0"
    if wanted or not _started or sys.stderr is None:
        yield
        return
    _stderr = os.dup(2)
    faulthandler.enable(_stderr)  # says at least where a library aborts
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(_stderr, b"" if _received else held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(_stderr, 2)
            faulthandler.disable()


def _end_by_signals(grace: float) -> None:
    """SIGINT and SIGTERM end the program with one line, wherever it is.

    The handler raises a KeyboardInterrupt, so that what is being written is removed.
    Python calls it between two steps of its own, for which TensorFlow may let it wait
    for minutes. A thread, therefore, ends the process after the grace period.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    wanted = early.ending_signals()
    for number in wanted:
        signal.signal(number, _interrupt)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def end_by(number: int) -> NoReturn:
        time.sleep(grace)
        _end(number)

    def await_signal() -> None:
        while (number := os.read(reader, 1)[0]) not in wanted:
            pass
        end_by(number)

    def await_orphanhood() -> None:
        while os.getppid() == int(os.environ[_PARENT]):
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        end_by(signal.SIGTERM)

    threading.Thread(target=await_signal, daemon=True).start()
    if os.environ.get(_PARENT):
        threading.Thread(target=await_orphanhood, daemon=True).start()
    sys.unraisablehook = _unraisable
    sys.excepthook = _end_of_main


def _interrupt(number: int, frame: object) -> None:
    global _received, _swallowed
    if _received is None or _swallowed:
        _received, _swallowed = number, False
        raise KeyboardInterrupt


def _unraisable(found: Any) -> None:
    """Where a `__del__` swallows the interruption, it is raised again, after it."""
    global _swallowed
    if _received is None:
        sys.__unraisablehook__(found)
    elif found.exc_type is KeyboardInterrupt:
        _swallowed = True
        threading.Timer(0.01, os.kill, (os.getpid(), _received)).start()


def _end_of_main(kind: type, error: BaseException, trace: object) -> None:
    if _received is None:
        sys.__excepthook__(kind, error, trace)
        return
    with contextlib.suppress(OSError, ValueError, SystemExit):
        sys.stdout.flush()
    _end(_received)


def _end(number: int) -> NoReturn:
    """Ends the process at once: TensorFlow's threads would wait for each other."""
    # Of two threads one says it; unless that hangs, as nobody reads what it writes.
    if _ending.acquire(timeout=1):
        # Below what stands there, as a progress bar or a terminal's ^C.
        text = f"\nInterrupted ({signal.Signals(number).name}). {_after}\n"
        with contextlib.suppress(OSError):
            if os.isatty(1):
                os.write(1, b"\x1b[?25h")  # a progress bar hides the cursor
            os.write(_stderr, text.encode())
    os._exit(128 + number)
