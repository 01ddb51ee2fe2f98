"""What other libraries call things, so that errors can say what they are called here."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from ttl_core.arguments import did_you_mean

METHODS_OF_OTHERS = ("training_step", "validation_step", "test_step", "configure_optimizers")
"""The names of methods that other libraries call."""

STOP_FLAGS = ("stop_training", "should_stop", "should_training_stop", "should_terminate")
"""The names of variables that stop a run of other libraries where they are set to True."""


def suggest_point(wrong: str, points: Collection[str]) -> str:
    """Return a question that suggests the callback point that is meant, or "" if none is near.

    Args:
        wrong: what was given; it may be what other libraries call a point.
        points: the points that there are.

    Example:
        >>> suggest_point("on_train_epoch_start", ["on_epoch_begin", "on_epoch_end"])
        "Did you mean 'on_epoch_begin', where loop.is_training? "
    """
    ours, phase = _POINTS_OF_OTHERS.get(wrong) or _without_phase(wrong, points)
    if ours in points:
        return f"Did you mean {ours!r}{f', where loop.{phase}' if phase else ''}? "
    if ours:  # a method that is no callback point
        return f"Did you mean {ours!r}? "
    for theirs, word in _WORDS_OF_OTHERS.items():
        wrong = wrong.replace(theirs, word)
    return did_you_mean(wrong, points)


def suggest_variable(wrong: str, names: Iterable[str]) -> str:
    """Return a hint at the loop variable or method that is meant, or "" if none is near.

    Args:
        wrong: what was read; it may be what other libraries call it.
        names: the variables and methods that there are.
    """
    return _VARIABLES_OF_OTHERS.get(wrong) or did_you_mean(wrong, names, cutoff=0.75)


def suggest_argument(wrong: str, names: Collection[str]) -> str:
    """Return a question that suggests the argument that is meant, or "" if none is near.

    Args:
        wrong: what was given; it may be what other libraries call the argument.
        names: the arguments that there are.

    Example:
        >>> suggest_argument("monitor", ["directory", "every", "best"])
        "Did you mean 'best'? "
    """
    for ours, theirs in _ARGUMENTS_OF_OTHERS.items():
        if ours in names and wrong in theirs.split():
            return f"Did you mean {ours!r}? "
    return did_you_mean(wrong, names)


# -- callback points ------------------------------------------------------------------------


def _without_phase(wrong: str, points: Collection[str]) -> tuple[str, str]:
    """Return the point that other libraries have one of for each phase, and that phase."""
    match = _OF_A_PHASE.fullmatch(wrong)
    if match is None:
        return "", ""
    theirs, kind, moment = match.groups()
    moment = "end" if moment == "end" else "begin"
    phase, variable = next(ours for start, ours in _PHASES.items() if theirs.startswith(start))
    if kind in ("batch", "step", "iteration"):
        return f"on_batch_{moment}", variable
    own = f"on_{phase}_{moment}"  # of the whole run
    if own in points and (kind is None or phase == "predict"):
        return own, ""
    return f"on_epoch_{moment}", variable


_OF_A_PHASE = re.compile(
    r"on_(training|train|validation|valid|val|evaluation|eval|testing|test|prediction|predict)_"
    r"(?:(batch|step|iteration|epoch|loop)_)?(start|begin|end)"
)
_PHASES = {
    "train": ("train", "is_training"),
    "val": ("valid", "is_validating"),
    "eval": ("valid", "is_validating"),
    "test": ("test", "is_testing"),
    "predict": ("predict", "is_predicting"),
}
"""How the names of phases begin; ours, and the loop variables that tell them."""

_POINTS_OF_OTHERS = {
    "on_fit_start": ("on_train_begin", ""),
    "on_fit_end": ("on_train_end", ""),
    "on_init_end": ("on_train_begin", ""),
    "on_step_start": ("on_batch_begin", ""),
    "on_step_begin": ("on_batch_begin", ""),
    "on_step_end": ("on_batch_end", ""),
    "on_substep_end": ("on_batch_end", ""),
    "on_prediction_step": ("on_batch_end", "is_validating"),
    "on_evaluate": ("on_epoch_end", "is_validating"),
    "on_before_zero_grad": ("on_grads_reset", ""),
    "on_before_backward": ("on_backward_pass", ""),
    "on_after_backward": ("on_backward_pass", ""),
    "on_grad_computed": ("on_backward_pass", ""),
    "on_save": ("on_safe_point", ""),
    "on_save_checkpoint": ("state_dict", ""),
    "on_load_checkpoint": ("load_state_dict", ""),
}
"""Callback points of other libraries, and ours, each with the phase in which it is meant."""

_WORDS_OF_OTHERS = {
    "start": "begin",
    "iteration": "batch",
    "zero_grad": "grads_reset",
    "optimizer": "optim",
    "fit": "train",
    "before_": "",
    "after_": "",
    "pre_": "",
    "post_": "",
}
"""Words in the names of callback points of other libraries, and those in ours."""


# -- variables and arguments ----------------------------------------------------------------

_VARIABLES_OF_OTHERS = {
    **dict.fromkeys(("fit", "train_loop"), "To train, call train(n_epochs=...). "),
    **dict.fromkeys(("evaluate", "eval"), "To evaluate, call validate() or test(data). "),
    **dict.fromkeys((*STOP_FLAGS, "terminate"), "To stop the run, call stop(). "),
    **dict.fromkeys(("epoch", "current_epoch"), "Did you mean 'epoch_num'? "),
    **dict.fromkeys(("step", "iteration"), "Did you mean 'global_step'? "),
    **dict.fromkeys(("batch_idx", "batch_index"), "Did you mean 'batch_num'? "),
    **dict.fromkeys(
        ("outputs", "output", "logits", "preds", "predictions", "y_pred"),
        "Did you mean 'scores'? ",
    ),
    **dict.fromkeys(("criterion", "loss_fn"), "Did you mean 'loss_func'? "),
    **dict.fromkeys(("inputs", "targets", "labels"), "They are part of `batch`. "),
    **dict.fromkeys(("lr", "learning_rate"), "It is in `optimizer.param_groups`. "),
    **dict.fromkeys(
        ("callback_metrics", "logged_metrics", "log_history", "history"),
        "The newest values are in `metrics`; the component 'history' keeps all. ",
    ),
    **dict.fromkeys(("callbacks", "add_callback"), "Did you mean 'components'? "),
    **dict.fromkeys(("train_dataloader", "train_loader"), "Did you mean 'train_data'? "),
    **dict.fromkeys(
        ("val_dataloaders", "val_dataloader", "val_loader", "eval_dataloader", "val_data"),
        "Did you mean 'valid_data'? ",
    ),
    **dict.fromkeys(("max_epochs", "num_epochs"), "Did you mean 'n_epochs'? "),
    **dict.fromkeys(("max_steps", "num_steps"), "Did you mean 'n_optim_steps'? "),
    **dict.fromkeys(("global_rank", "local_rank", "rank"), "It is `group.rank`. "),
    "world_size": "It is `group.size`. ",
    "is_global_zero": "It is `group.is_main`. ",
    "save_checkpoint": "To save, put 'checkpoint' into the list; state_dict() is the state. ",
    "device": "The model's is that of its parameters. ",
}
"""Hints for names of variables and methods that other libraries have."""

_ARGUMENTS_OF_OTHERS = {
    "best": "monitor metric metric_for_best_model save_best",
    "monitor": "metric metric_name quantity",
    "keep": "save_top_k max_to_keep save_total_limit n_saved",
    "directory": "dirpath dir path folder filepath root_dir log_dir logdir save_dir output_dir",
    "every": "every_n_epochs every_n_steps every_n_train_steps log_every_n_steps logging_steps "
    "save_freq save_steps frequency interval steps n accumulate_grad_batches accumulation_steps "
    "gradient_accumulation_steps",
    "max_norm": "gradient_clip_val max_grad_norm clip_norm clipnorm clip norm",
    "max_value": "clip_value clipvalue",
    "dtype": "precision",
    "loss_func": "loss criterion loss_fn loss_function",
    "optimizer": "optim opt optimizers",
    "scheduler": "lr_scheduler",
    "patience": "wait tolerance early_stopping_patience",
    "threshold": "stopping_threshold baseline goal target",
    "decay": "ema_decay momentum beta gamma",
    "warmup": "warmup_steps warmup_epochs num_warmup_steps warmup_ratio",
    "n_steps": "steps n warmup_steps num_warmup_steps num_steps max_steps",
    "limit": "max_time duration",
    "refresh_per_second": "refresh_rate",
    "project": "project_name experiment_name",
    "experiment": "experiment_name project_name project",
    "run_name": "run display_name",
}
"""Arguments of components, and what other libraries call them."""
