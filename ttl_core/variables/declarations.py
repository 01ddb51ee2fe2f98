"""The declaration of the loop variables, copied in docs/reference/loop-variables.md."""

from __future__ import annotations

from typing import NamedTuple


class Variable(NamedTuple):
    """The documentation of a loop variable.

    Attributes:
        name: its name.
        type: its type, and its shape where it has one.
        meaning: what it holds.
        set_by: what sets it, and when.
    """

    name: str
    type: str
    meaning: str
    set_by: str


_LOOP_MADE = "the loop, when it is created"
_RUN_BEGINS = "the loop, when a run begins"
_EPOCH_BEGINS = "the loop, when an epoch begins"
_EACH_BATCH = "the loop, before on_batch_begin"
_TRAIN_BEGINS = "a component, in on_train_begin"

VARIABLES: tuple[Variable, ...] = (
    Variable("model", "torch.nn.Module", "the model", _LOOP_MADE),
    Variable("components", "list of components", "the components, in call order", _LOOP_MADE),
    Variable("train_data", "iterable or None", "the batches of training", _LOOP_MADE),
    Variable(
        "valid_data",
        "iterable, mapping of names to iterables, or None",
        "the batches of validation; a mapping is several named sets",
        _LOOP_MADE,
    ),
    Variable("hook", "namespace", "the hooks, called with keywords", _LOOP_MADE),
    Variable(
        "n_epochs",
        "int or None",
        "number of epochs in the current run; None if optimization steps are counted",
        _RUN_BEGINS,
    ),
    Variable(
        "n_batches",
        "int or None",
        "number of batches in the current epoch; None if its data have no length",
        "the loop, whenever `data` is set",
    ),
    Variable(
        "n_optim_steps",
        "int or None",
        "number of optimization steps in the current train(); None if it is unknown",
        "the loop, when train() begins; wrappers on on_train_begin may change it",
    ),
    Variable(
        "run_desc",
        "str or None",
        'what runs: "train", "valid", "test" or "predict"; None outside of runs',
        _RUN_BEGINS,
    ),
    Variable("is_training", "bool", "whether this is a training epoch", _EPOCH_BEGINS),
    Variable("is_validating", "bool", "whether this is a validation epoch", _EPOCH_BEGINS),
    Variable("is_testing", "bool", "whether this is a test epoch", _EPOCH_BEGINS),
    Variable("is_predicting", "bool", "whether this is a prediction epoch", _EPOCH_BEGINS),
    Variable("epoch_desc", "str", '"train", "valid", "test" or "predict"', _EPOCH_BEGINS),
    Variable(
        "epoch_num",
        "int",
        "number of training epochs completed since the loop was created",
        "the loop, when an epoch has been validated",
    ),
    Variable(
        "data",
        "iterable",
        "the batches of the current epoch",
        _EPOCH_BEGINS + "; on_epoch_begin may replace it",
    ),
    Variable(
        "data_name",
        "str or None",
        "the name of the current validation set where there are several",
        _EPOCH_BEGINS,
    ),
    Variable("batch", "anything", "the current batch, as the data yielded it", _EACH_BATCH),
    Variable("batch_num", "int", "number of the batch in the current epoch, from 0", _EACH_BATCH),
    Variable(
        "batch_size",
        "number, or tensor without dimensions",
        "weight of this batch's mean loss; by default the length of its first tensor",
        "a component, in on_batch_begin, where the batch holds no tensor or other things count",
    ),
    Variable(
        "is_stepping",
        "bool",
        "whether this training batch ends in an optimization step",
        _EACH_BATCH + "; components may clear it until on_backward_pass has ended",
    ),
    Variable(
        "optim_step_num",
        "int",
        "number of optimization steps in the current train()",
        "the loop, after on_optim_step",
    ),
    Variable(
        "global_step",
        "int",
        "number of optimization steps since the loop was created",
        "the loop, after on_optim_step",
    ),
    Variable(
        "metrics",
        "dict of names to numbers",
        "the newest epoch-level values; one that is logged as a tensor is read as a number",
        'components, by `loop.log(..., level="epoch")`',
    ),
    Variable(
        "run_folder",
        "pathlib.Path",
        "the folder of the run, for what components write",
        "a component, when a run begins",
    ),
    Variable(
        "group",
        "ttl_core.Group",
        "the processes that train together: rank, size, reductions; one process by default",
        "a component that joins them, before a run begins",
    ),
    Variable("loss_func", "callable", "the loss function of (scores, targets)", _TRAIN_BEGINS),
    Variable("optimizer", "torch.optim.Optimizer", "the optimizer", _TRAIN_BEGINS),
    Variable(
        "optimizers",
        "list of torch.optim.Optimizer",
        "all optimizers that step; by default `[optimizer]`",
        _TRAIN_BEGINS,
    ),
    Variable("scheduler", "scheduler or None", "the learning-rate scheduler", _TRAIN_BEGINS),
    Variable(
        "scores",
        "tensor or nested tensors",
        "the output of the model",
        "a component, in on_forward_pass",
    ),
    Variable(
        "loss",
        "tensor without dimensions",
        "the mean loss of this batch",
        "a component, in on_loss_compute; not in predict(): read it `if not loop.is_predicting`",
    ),
)
"""All loop variables: those that the loop sets, and by convention those that components set."""
