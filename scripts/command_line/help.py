"""Prints --help, and suggests flags for a mistyped one."""

import difflib
import inspect
import shutil
import sys
import textwrap

from absl import flags

FLAGS = flags.FLAGS

# Names of these flags in other programs.
_ALSO_CALLED = {
    "arch": ("network", "model", "net"),
    "datasource": ("dataset", "data"),
    "data_dir": ("datadir", "dataset_dir", "path"),
    "logdir": ("output", "outdir", "out", "save_dir", "results"),
    "outdir": ("output", "out", "results"),
    "lr": ("learning_rate", "rate"),
    "structure": ("pattern",),
    "train_iterations": ("epochs", "steps", "max_steps", "iterations"),
    "target_sparsity": ("pruning_rate", "density", "ratio"),
    "jobs": ("workers", "processes"),
    "path": ("output", "out"),
}
# Titles of groups, each with the flags defined before it.
_groups: list[tuple[str, set[str]]] = []


def group(title: str) -> None:
    """Shows the flags defined from here on under this title."""
    _groups.append((title, set(FLAGS)))


def own_flags() -> list[str]:
    """Returns the program's flags in the order in which they were defined."""
    before = _groups[0][1]
    return [name for name in FLAGS if name not in before]


def help_text() -> str:
    """Returns what the program does, then its flags by group."""
    width = min(shutil.get_terminal_size().columns, 100)
    lines = [inspect.getdoc(sys.modules["__main__"]) or ""]
    ends = [before for _, before in _groups[1:]] + [set(FLAGS)]
    for (title, before), end in zip(_groups, ends, strict=True):
        lines += ["", f"{title}:"]
        for name in own_flags():
            if name in end - before:
                lines += _about(FLAGS[name], width)
    return "\n".join(lines)


def _about(flag: flags.Flag, width: int) -> list[str]:
    """Returns a flag's default, its description, and the values it may have."""
    text, value = " ".join(flag.help.split()), (flag.default_as_str or "").strip("'")
    if isinstance(flag, flags.EnumFlag):
        known = flag.parser.enum_values
        text = f"{text.partition('>: ')[2]} One of {', '.join(known)}."
    if flag.boolean and flag.default:
        text += " On by default."
    indent = " " * 6
    return [
        f"  --[no]{flag.name}" if flag.boolean else f"  --{flag.name}={value}",
        *textwrap.wrap(
            text,
            width,
            initial_indent=indent,
            subsequent_indent=indent,
            break_on_hyphens=False,
        ),
    ]


def did_you_mean(unknown: str) -> str:
    """Suggests flags that share a word with a mistyped one, or are spelled alike."""
    unknown = unknown.replace("-", "_").lower()
    own = own_flags()
    words = set(unknown.split("_"))
    near = difflib.get_close_matches(unknown, own, 3)
    near += [name for name in own if unknown in _ALSO_CALLED.get(name, ())]
    near += [name for name in own if words & set(name.split("_"))]
    chosen = [f"--{name}" for name in dict.fromkeys(near)][:3]
    return f" Did you mean {' or '.join(chosen)}?" if chosen else ""
