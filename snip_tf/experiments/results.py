"""Results of runs: one JSON file each, checked whenever it is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from snip_tf.experiments.recipes import Flags
from snip_tf.files import read_json, write_json

# The contents of a run's JSON file.
Result = dict[str, Any]

# The largest count, and the seconds of thirty years: larger values are not results.
_MOST, _LONGEST = 2**63, 1e9
_RANGES: dict[str, tuple[float, float]] = {
    "final_error": (0, 100),
    "best_checkpoint_error": (0, 100),
    "validation_error": (0, 100),
    "pruning_seconds": (0, _LONGEST),
    "training_seconds": (0, _LONGEST),
}
# What reading or checking a file that holds no result raises.
_NO_RESULT = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    TypeError,
    ValueError,
)


class ExperimentError(ValueError):
    """Raised when an experiment cannot continue; says why, and what to do."""


class Run(NamedTuple):
    """One run of `scripts/train.py`.

    Attributes:
        name: the name of its files, below the folders of results and of logs, without a
            suffix.
        flags: its flags, including the seed, but without folders.
        about: what is kept with its result.
    """

    name: Path
    flags: Flags
    about: Mapping[str, Any] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Results:
    """The results in a folder.

    Attributes:
        folder: the folder.
        defaults: the flags of `scripts/train.py` with their defaults.
        check: called with a path and the result read there; raises an error if the
            result is damaged, or belongs to another run.
    """

    folder: Path
    defaults: Flags
    check: Callable[[Path, Result], None]

    def path(self, run: Run) -> Path:
        """Returns the path of a run's result, which may not exist yet."""
        return self.folder / f"{run.name}.json"

    def keep(self, run: Run, result: Result) -> None:
        """Writes a run's result."""
        self.path(run).parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path(run), {**run.about, **result})

    def read(self, path: Path) -> Result:
        """Returns a result.

        Raises:
            ExperimentError: if the file holds none; names it.
        """
        try:
            result = read_object(path)
            self.check(path, result)
        except _NO_RESULT as error:
            raise ExperimentError(
                f"Expected {path} to be an unchanged result of a run. Received: one "
                f"that is damaged ({error!r}). Remove it to run it again."
            ) from error
        return result

    def is_done(self, run: Run) -> bool:
        """Returns whether a run has a result, which may be that it diverged.

        Raises:
            ExperimentError: if the result is damaged, or was made with other flags.
        """
        path = self.path(run)
        if not path.exists():
            return False
        found = self.read(path)["flags"]
        different = differences({**self.defaults, **run.flags}, found)
        if different:
            raise ExperimentError(
                f"Expected results with the same flags in --outdir. Received: {path}, "
                f"made with {'; '.join(different)}. Name another --outdir, or remove "
                f"the file."
            )
        return True


def read_object(path: Path) -> Result:
    """Returns the object in a JSON file; raises a ValueError if it holds none."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, not an object")
    return found


def differences(flags: Flags, found: Flags) -> list[str]:
    """Describes where flags differ from those that a result was made with.

    All flags of the main program are compared, given or not: runs under different
    defaults differ, while giving a default explicitly makes no difference. Flags that
    the version that made the result did not have cannot be compared.

    Args:
        flags: all flags of the main program.
        found: the flags in the result.
    """
    return [
        f"--{name}={found[name]}, now --{name}={value}"
        for name, value in flags.items()
        if name in found and _plain(found[name]) != _plain(value)
    ]


def _plain(value: object) -> object:
    """Returns a flag's value in a canonical form, so that 5e-4 equals 0.0005."""
    if isinstance(value, list):
        value = ",".join(map(str, value))
    try:
        return float(str(value))
    except ValueError:
        return str(value).lower()  # true and True are equal


def check_result(result: Result, needed: Collection[str]) -> None:
    """Raises one of several errors if the numbers cannot be those of a run.

    Args:
        result: what was read from a file.
        needed: the numbers that must exist; a run that diverged lacks most.
    """
    for name, (lowest, highest) in _RANGES.items():
        value = result.get(name)
        if (value is not None or name in needed) and not is_number(
            value, lowest, highest
        ):
            raise ValueError(f"{name} is {value!r}")
    if not isinstance(result["layers"], list):
        raise TypeError("layers are not a list")
    for layer in result["layers"]:
        _check_layer(layer)


def _check_layer(layer: Mapping[str, Any]) -> None:
    total, kept, units = (layer[name] for name in ("total", "kept", "units"))
    dead = dead_units(layer)
    if (
        not isinstance(layer["path"], str)
        or any(isinstance(count, float) for count in (total, kept, units, dead))
        or not is_number(total, 1, _MOST)
        or not is_number(kept, 0, total)
        or not is_number(units, 0, _MOST)
        or not is_number(dead, 0, units)
    ):
        raise ValueError(
            f"{layer['path']!r} has {kept!r} of {total!r} connections, and "
            f"{dead!r} of {units!r} units are dead"
        )


def is_number(value: object, lowest: float, highest: float) -> bool:
    """Returns whether a value is a number within a range; True and NaN are not."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and lowest <= value <= highest
    )


def dead_units(layer: Mapping[str, Any]) -> int:
    """Returns how many units of a layer in a result are dead."""
    return layer["idle_units"]  # the name in the files


def kernels(result: Result) -> list[Mapping[str, Any]]:
    """Returns the layers of a result without biases."""
    return [layer for layer in result["layers"] if "bias" not in layer["path"]]


def units(results: Collection[Result]) -> tuple[int, int]:
    """Returns the number of dead units and of all units in some networks."""
    # The gates of a recurrent cell have two kernels, either of which may be an input.
    plain = [
        layer
        for result in results
        for layer in kernels(result)
        if "recurrent" not in layer["path"]
    ]
    return sum(map(dead_units, plain)), sum(layer["units"] for layer in plain)
