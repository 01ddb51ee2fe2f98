"""The training arguments, the state and the control that callbacks of transformers get."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ttl_adapters.facade import STOP_FLAG, Facade, Metrics, as_logs

if TYPE_CHECKING:
    from ttl_adapters.adapter import Adapter
    from ttl_core import TrainTestLoop

FLAGS = (
    *("should_training_stop", "should_epoch_stop", "should_save", "should_evaluate"),
    "should_log",
)
"""The flags of a TrainerControl."""


EVENTS = (
    *("on_init_end", "on_train_begin", "on_epoch_begin", "on_step_begin", "on_step_end"),
    *("on_substep_end", "on_epoch_end", "on_train_end", "on_evaluate", "on_predict", "on_log"),
    *("on_optimizer_step", "on_pre_optimizer_step", "on_prediction_step", "on_save"),
)
"""The events of a TrainerCallback."""


class Arguments(Facade):
    """The training arguments that callbacks of transformers get.

    Args:
        adapter: the component whose callback they are for.
        given: those that were given, by name.
    """

    computed = {  # noqa: RUF012
        "eval_strategy": lambda loop: "no" if loop.valid_data is None else "epoch",
        "num_train_epochs": lambda loop: loop.n_epochs,
        "output_dir": lambda loop: str(getattr(loop, "run_folder", os.getcwd())),
        "process_index": lambda loop: loop.group.rank,
        "world_size": lambda loop: loop.group.size,
    }

    def __init__(self, adapter: Adapter, given: Mapping[str, Any]) -> None:
        every = given.get("logging_steps")
        defaults = {
            "eval_delay": 0,
            "greater_is_better": False,
            "load_best_model_at_end": False,
            "logging_first_step": False,
            "logging_steps": every,
            "logging_strategy": "epoch" if every is None else "steps",
            "max_steps": -1,
            "metric_for_best_model": "loss",
            "run_name": None,
            "save_strategy": "no",
        }
        super().__init__("args", adapter.callback, **{**defaults, **given})

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments by name."""
        computed = {name: getattr(self, name) for name in self.computed}
        return computed | {name: v for name, v in vars(self).items() if name[0] != "_"}

    def to_json_string(self) -> str:
        """Return the arguments as JSON."""
        return json.dumps(self.to_dict(), indent=2, default=str)

    def unsupported(self, name: str, does: str) -> AttributeError:  # type: ignore[override]
        """Return the error for an argument, which may be given.

        Args:
            name: the argument.
            does: what the callback does with it.
        """
        error = super().unsupported(name, does)
        return type(error)(f"{error}. Give it: args={{{name!r}: ...}}")


def _max_steps(loop: TrainTestLoop) -> float:
    """Return the step at which this train() ends; infinity where it is not known."""
    first = loop.global_step - loop.optim_step_num
    return math.inf if loop.n_optim_steps is None else first + loop.n_optim_steps


class State(Facade):
    """The state of the trainer that callbacks of transformers get.

    Args:
        adapter: the component whose callback it is for.
        args: the training arguments.
    """

    instead = {  # noqa: RUF012
        "log_history": "the component history",
        "num_input_tokens_seen": "the component throughput",
        "stateful_callbacks": "loop.components",
        "total_flos": "the component throughput",
        "train_batch_size": "loop.batch_size",
    }
    computed = {  # noqa: RUF012
        "global_step": lambda loop: loop.global_step,
        "is_local_process_zero": lambda loop: loop.group.is_main,
        "is_world_process_zero": lambda loop: loop.group.is_main,
        "max_steps": _max_steps,
    }

    def __init__(self, adapter: Adapter, args: Any) -> None:
        super().__init__(
            "state",
            adapter.callback,
            _adapter=adapter,
            _args=args,
            epoch=0.0,
            best_metric=None,
            best_global_step=None,
            best_model_checkpoint=None,
            is_hyper_param_search=False,
            trial_name=None,
            trial_params=None,
        )

    def begin(self, loop: TrainTestLoop) -> None:
        """Follow a loop from the beginning of a run.

        Args:
            loop: the loop.
        """
        epoch = float(loop.epoch_num)
        self.set(_loop=loop, epoch=epoch, best_metric=None, best_global_step=None)

    @property
    def num_train_epochs(self) -> float:
        """The epoch before which this train() ends; infinity where it counts steps."""
        n_epochs = self._loop.n_epochs
        return math.inf if n_epochs is None else int(self._adapter.first_epoch + n_epochs)

    logging_steps = property(lambda self: self._args.logging_steps)
    eval_steps = property(lambda self: self._args.eval_steps)
    save_steps = property(lambda self: self._args.save_steps)


def update_best(state: State, metrics: Metrics) -> None:
    """Record the best value of `args.metric_for_best_model`, as the Trainer does.

    Args:
        state: the state.
        metrics: the values of an evaluation.
    """
    args = vars(state)["_args"]
    name = args.metric_for_best_model
    value = None if name is None else metrics.get(f"eval_{name.removeprefix('eval_')}")
    if value is not None:
        best = state.best_metric
        if best is None or (value > best if args.greater_is_better else value < best):
            state.set(best_metric=value, best_global_step=state.global_step)


def logs_of(values: Mapping[str, Any]) -> Metrics:
    """Return logged values as transformers has them.

    Args:
        values: the values by the names of ttl.
    """
    logs = as_logs(values, {"train": "", "valid": "eval_", "test": "test_"})
    logs.aliases |= {f"eval_{name}": own for name, own in logs.aliases.items()}
    return logs


def objects_of(loop: TrainTestLoop) -> dict[str, Any]:
    """Return what events get by keyword.

    Args:
        loop: the loop.
    """
    there = vars(loop)  # as the error for an unset variable takes long
    return {
        "model": loop.model,
        "processing_class": None,
        "optimizer": there.get("optimizer"),
        "lr_scheduler": there.get("scheduler"),
        "train_dataloader": loop.train_data,
        "eval_dataloader": loop.valid_data if loop.is_training else loop.data,
    }


class Control(Facade):
    """The control that callbacks of transformers get.

    Args:
        adapter: the component whose callback it is for.
    """

    should_training_stop = STOP_FLAG
    settable = FLAGS
    instead = {  # noqa: RUF012
        "should_epoch_stop": "the component limit-batches",
        "should_save": "the component checkpoint",
    }

    def __init__(self, adapter: Adapter) -> None:
        flags = dict.fromkeys(FLAGS[1:], False)
        super().__init__("control", adapter.callback, _adapter=adapter, **flags)

    def take(self, other: Any) -> None:
        """Take the flags of a control that an event has returned.

        Args:
            other: the control; None where the event returned none.
        """
        if other is not None and other is not self:
            for flag in FLAGS:
                setattr(self, flag, getattr(other, flag))

    def __setattr__(self, name: str, value: Any) -> None:
        if value and name in self.instead:
            raise self.unsupported(name, "sets")
        super().__setattr__(name, value)
