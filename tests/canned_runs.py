"""Results of runs that were never made, for the programs that start many."""

import csv
import json

import pytest

from snip_tf.experiments import runner

LAYER = {"path": "a/kernel", "kept": 1, "total": 2, "idle_units": 0, "units": 3}


def result_of(flags, **changes):
    """A result as a run of these flags would leave it."""
    return {
        "final_error": 1.5,
        "best_checkpoint_error": 1.25,
        "validation_error": 1.75,
        "pruning_seconds": 0.1,
        "training_seconds": 2.0,
        "flags": {name: value for name, value in flags.items() if name != "data_dir"},
        "layers": [LAYER],
        "history": [{"iteration": 4, "loss": 2.0}],
        **changes,
    }


def diverged(flags):
    """What is kept of a run whose loss was not finite."""
    known = ("pruning_seconds", "flags", "layers")
    result = result_of(flags)
    return {"diverged": "the loss is nan", **{name: result[name] for name in known}}


class CannedRuns:
    """Stands in for `Runner.run`.

    Attributes:
        flags: those of each run, in the order in which they were started.
        outcome: called with the flags of a run; returns its result.
    """

    def __init__(self, outcome=result_of):
        self.flags, self.outcome = [], outcome

    def install(self, monkeypatch):
        def run(_, flags, logdir):
            self.flags.append(flags)
            return self.outcome(flags)

        monkeypatch.setattr(runner.Runner, "run", run)
        return self


def rows(path):
    """The lines of a CSV."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def picture_data(path):
    """What a picture was drawn from; fails if it shows nothing."""
    from matplotlib.image import imread

    assert imread(path).std() > 0.01
    return json.loads(path.with_suffix(".json").read_text())


def refuses_in_a_line(words, call):
    """Fails unless `call` ends the program with these words, in one line."""
    with pytest.raises(SystemExit, match=words) as refusal:
        call()
    assert refusal.value.code.isprintable()
