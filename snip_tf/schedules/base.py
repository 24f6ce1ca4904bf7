"""Schedule: a callback that changes the masks of a model while it trains."""

from __future__ import annotations

import abc
import warnings
import weakref
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from snip_tf import _backend
from snip_tf.checks import check_count, check_seed
from snip_tf.masking.optimizers import optimizers_of
from snip_tf.masking.pruned_model import assign_masks
from snip_tf.masking.stored_masks import keep_step, step_of
from snip_tf.network import Network, check_model


class Schedule(keras.callbacks.Callback, abc.ABC):
    """Updates masks after some steps of an optimizer, within `fit` or a loop.

    Step t is reached when the optimizer's `iterations` is t. Updates are due at
    `begin_step`, every `frequency` steps from there, and at `end_step`. One that is due
    within an execution of several steps (`steps_per_execution`) follows it, with what
    it would have been for its own step.

    All that an update depends on are the weights, the step and `seed`, so that training
    which continues from a checkpoint has the same masks.

    Args:
        frequency: int, steps between updates.
        end_step: int, the step of the last update. None for three quarters of the steps
            of `fit`, rounded down.
        seed: int, 0 or more, for what is drawn. None draws with NumPy's global
            generator.
        begin_step: int, the step of the first update.
    """

    def __init__(
        self,
        frequency: int,
        end_step: int | None,
        seed: int | None,
        begin_step: int,
    ):
        super().__init__()
        check_count("frequency", frequency)
        check_count("begin_step", begin_step, least=0)
        if end_step is not None:
            check_count("end_step", end_step)
            if end_step < begin_step:
                raise ValueError(
                    f"Expected `end_step` to be at least the first step of an update, "
                    f"{begin_step}. Received: end_step={end_step}"
                )
        check_seed(seed)
        self._frequency, self._first = frequency, begin_step
        self._end, self._seed = end_step, seed
        self._last = end_step  # or that of the current `fit`
        self._made: int | None = None  # the step up to which updates have been made

    # What a subclass has.

    @abc.abstractmethod
    def _new_masks(self, network: Network, step: int) -> Mapping[str, np.ndarray]:
        """Returns the masks that change at a step, by weight path."""

    def _check(self, network: Network) -> None:
        """Raises an error if the masks of a model cannot be updated."""

    def _made_before(self, network: Network, step: int, executed: int) -> int:
        """Returns the step up to which updates have been made before training begins.

        Args:
            network: the model.
            step: that of its optimizer.
            executed: how many steps are executed at once.
        """
        # The file of a checkpoint may have been written before or after the update.
        noted = step_of(network.owners)
        before = step - executed
        return max(before, noted) if noted is not None and noted <= step else before

    def _describe_end(self, step: int) -> str:
        """Returns what is missing if training ends at a step, for a warning."""
        return f"no update after step {step}"

    # The callback.

    def set_model(self, model: keras.Model) -> None:
        """Chooses the model, in a loop of one's own; `fit` calls this itself.

        Raises:
            TypeError: if it is not a Keras model.
            ValueError: if it is not pruned, or cannot be updated like this.
        """
        check_model(model)
        super().set_model(model)
        network = Network(model)
        if not network.mask_variables:
            raise ValueError(
                f"Expected a model with masks. Received: model={model.name!r}, which "
                f"has none. Apply some first, dense ones to begin with everything: "
                f"model = snip_tf.prune_model(model, sparsity=0.0, "
                f"criterion='magnitude')."
            )
        self._check(network)
        self._made, self._last = None, self._end
        # Past Keras, which tracks attributes; weakly, as they refer to one another.
        object.__setattr__(model, "_snip_schedule", weakref.ref(self))

    def step(self, optimizer: keras.Optimizer | None = None) -> None:
        """Makes the updates that are due, in a loop of one's own, after each step.

        Args:
            optimizer: `keras.Optimizer`, which made the step, and whose state for
                connections that come or go is reset. None for `model.optimizer`.

        Raises:
            ValueError: if `set_model` was not called, there is no optimizer, or
                `end_step` is None.
        """
        model = self._own_model()
        if self._last is None:
            raise ValueError(
                "Expected `end_step` in a loop of one's own, whose number of steps is "
                "not known. Received: end_step=None"
            )
        optimizers = [optimizer] if optimizer is not None else self._optimizers(model)
        now = _steps_done(model, optimizers)
        if self._made is None:
            self._made = self._made_before(Network(model), now, 1)
        self._update_until(now, optimizers)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Prepares for `fit`."""
        self._own_model()
        # A checkpoint may yet be loaded, by another callback.
        self._made, self._last = None, self._end

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Notes where training begins, and makes what is due by then."""
        if self._made is not None:
            return
        model = self._own_model()
        optimizers = self._optimizers(model)
        now = _steps_done(model, optimizers)
        self._check_end(model, epoch, now)
        executed = getattr(model, "steps_per_execution", None) or 1
        self._made = self._made_before(Network(model), now, executed)
        self._update_until(now, optimizers)

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Makes the updates that are due."""
        model = self._own_model()
        optimizers = self._optimizers(model)
        self._update_until(_steps_done(model, optimizers), optimizers)

    def _own_model(self) -> keras.Model:
        """Returns the model; raises an error unless this is its only schedule."""
        model = self.model
        if model is None:
            raise ValueError(
                "Expected `set_model(pruned)` before the first `step()`. Received: "
                f"{type(self).__name__} without a model"
            )
        other = getattr(model, "_snip_schedule", lambda: None)()
        if other is not self:
            raise ValueError(
                f"Expected one schedule for the masks of a model. Received: "
                f"{type(self).__name__} and {type(other).__name__} for "
                f"{model.name!r}. Use one of them, or one after the other."
            )
        return model

    def _optimizers(self, model: keras.Model) -> list[keras.Optimizer]:
        """Returns the optimizers of a model; raises an error if there is none."""
        found = optimizers_of([model])
        if not found:
            raise ValueError(
                f"Expected an optimizer, whose `iterations` tell the step. Received: "
                f"model={model.name!r}, which is not compiled. Compile it, or pass "
                f"the optimizer: {type(self).__name__}.step(optimizer)."
            )
        return found

    def _check_end(self, model: keras.Model, epoch: int, now: int) -> None:
        """Sets the last step if it is not given, and warns if it is out of reach."""
        total = _steps_of_fit(model, self.params, epoch, now)
        if self._last is None:
            if total is None:
                raise ValueError(
                    "Expected `end_step` where `fit` does not know how many steps it "
                    "takes. Received: end_step=None, with data of unknown length. "
                    "Give `fit` steps_per_epoch, or end_step the step of the last "
                    "update."
                )
            first, steps = total
            self._last = first + 3 * steps // 4
        elif total is not None and sum(total) < self._last:
            warnings.warn(
                f"Training ends at step {sum(total)}, before end_step={self._last}: "
                f"{self._describe_end(sum(total))}.",
                stacklevel=2,
            )

    def _update_until(self, now: int, optimizers: list[keras.Optimizer]) -> None:
        if self._made is None or now <= self._made:
            return
        while (step := self.next_step(self._made)) is not None and step <= now:
            network = Network(self.model)
            masks = self._new_masks(network, step)
            if masks:
                assign_masks(network, masks, optimizers)
            keep_step(network.owners, step)
            self._made = step
        self._made = now

    def next_step(self, after: int) -> int | None:
        """Returns the step of the first update after a step, if there is one."""
        first, last = self._first, self._last
        if last is None or after >= last:
            return None
        number = max(0, (after - first) // self._frequency + 1)
        return min(first + number * self._frequency, last)

    def _last_due(self, step: int) -> int | None:
        """Returns the step of the last update up to a step, if there is one."""
        first, last = self._first, self._last
        if step < first or last is None:
            return None
        number = (step - first) // self._frequency
        return last if step >= last else first + number * self._frequency


def seed_of(seed: int | None, step: int) -> int | None:
    """Returns the seed of what is drawn for an update."""
    if seed is None:
        return None
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])


def _steps_done(model: keras.Model, optimizers: list[keras.Optimizer]) -> int:
    """Returns the step of the optimizer (of several, the one that is furthest)."""
    with _backend.state_of_fit(model):
        return max(
            int(_backend.on_host(keras.ops.convert_to_tensor(optimizer.iterations)))
            for optimizer in optimizers
        )


def _steps_of_fit(
    model: keras.Model, params: Mapping[str, Any] | None, epoch: int, now: int
) -> tuple[int, int] | None:
    """Returns the step at which `fit` began, and how many it takes, if known."""
    steps, epochs = ((params or {}).get(name) for name in ("steps", "epochs"))
    if not steps or not epochs:
        return None
    at_once = getattr(model.optimizer, "gradient_accumulation_steps", None) or 1
    done, more = epoch * steps // at_once, (epoch + 1) * steps // at_once
    # Steps that an earlier `fit` made, with the same optimizer.
    first = 0 if done <= now <= more else now - done
    return first, epochs * steps // at_once
