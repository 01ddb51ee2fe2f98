"""What is checked of optimizers and losses, and what is said where a model or a loss fails."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch

from ttl_core import ArgumentError, describe_batch
from ttl_core.arguments import describe as describe_value
from ttl_core.arguments import did_you_mean, user_stacklevel
from ttl_supervised.batches import describe, suggested_split


def check_loss_func(loss_func: Any) -> None:
    """Check that a loss function can be called with scores and targets.

    Args:
        loss_func: the loss function; None where the model returns its loss.

    Raises:
        ArgumentError: it cannot, or is the class of one.
    """
    if loss_func is None or (callable(loss_func) and not isinstance(loss_func, type)):
        return
    write = ""
    if isinstance(loss_func, type):
        write = f", an object of it: loss_func={_path_of(loss_func)}()"
    elif isinstance(loss_func, str):
        near = did_you_mean(loss_func, [n for n in vars(torch.nn) if n.endswith("Loss")])
        write = f". {near}Write, for example: loss_func=torch.nn.CrossEntropyLoss()"
    raise ArgumentError(
        f"loss_func is {loss_func!r}, but has to take scores and targets and return a loss, or to "
        f"be None where the model returns it{write or ', as torch.nn.CrossEntropyLoss() does'}"
    )


def check_optimizer_argument(optimizer: Any) -> None:
    """Check that what is given as optimizer is one, or can make one from parameters.

    Args:
        optimizer: what is given.

    Raises:
        ArgumentError: it does neither.
    """
    if callable(optimizer) or isinstance(optimizer, torch.optim.Optimizer):
        return
    classes = {
        name.lower(): name for name, each in vars(torch.optim).items() if _is_optimizer(each)
    }
    cls = classes.get(optimizer.lower(), "Adam") if isinstance(optimizer, str) else "Adam"
    raise ArgumentError(
        f"optimizer is {describe_value(optimizer)}, but has to be an optimizer or to make one from "
        f"parameters. Write: optimizer=functools.partial(torch.optim.{cls}, lr=1e-3)"
    )


def _is_optimizer(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, torch.optim.Optimizer)


def _path_of(cls: type) -> str:
    """Return how scripts write a class."""
    is_of_torch = getattr(torch.nn, cls.__name__, None) is cls
    return f"torch.nn.{cls.__name__}" if is_of_torch else cls.__qualname__


def check_reduction(loss_func: Any) -> None:
    """Check that a loss function of torch returns the mean of a batch.

    One of another package may reduce by itself what it has told torch not to reduce.

    Args:
        loss_func: the loss function: a module of torch.nn, a functools.partial, or any other.

    Raises:
        ArgumentError: it returns a loss for each sample.
    """
    if isinstance(loss_func, partial):
        home, reduction = loss_func.func, loss_func.keywords.get("reduction")
    else:
        home, reduction = type(loss_func), getattr(loss_func, "reduction", None)
    if str(getattr(home, "__module__", "")).partition(".")[0] != "torch":
        return
    if reduction == "none":
        raise ArgumentError(
            f"loss_func is {loss_func!r} with reduction='none', but has to return the mean loss of "
            "the batch: give it reduction='mean', or a function that reduces what it returns"
        )
    if reduction == "sum":
        warnings.warn(
            f"loss_func is {loss_func!r} with reduction='sum', but loop.loss is by convention the "
            "mean loss of a batch: means over epochs and accumulated gradients count it by the "
            "size of the batch once more. Give it reduction='mean', and the learning rate that "
            "fits; if the sum is meant, give a function: lambda scores, targets: ...",
            UserWarning,
            stacklevel=user_stacklevel(),
        )


def check_optimizer(optimizer: Any, model: torch.nn.Module, loss_func: Any) -> None:
    """Check that an optimizer updates parameters of a model, or of its loss function.

    Args:
        optimizer: the optimizer, or what a factory returned.
        model: the model.
        loss_func: the loss function, which may have parameters too.

    Raises:
        ArgumentError: it is no optimizer, or updates none of them.
    """
    if not hasattr(optimizer, "step") or not hasattr(optimizer, "zero_grad"):
        raise ArgumentError(f"the factory given as optimizer returned {optimizer!r}, no optimizer")
    updated = _parameters(optimizer)
    own = {id(parameter) for parameter in model.parameters()}
    if not updated or not own or updated & own:
        return
    if isinstance(loss_func, torch.nn.Module):
        own |= {id(parameter) for parameter in loss_func.parameters()}
    if not updated & own:
        raise ArgumentError(
            f"optimizer, a {type(optimizer).__name__} of {len(updated)} parameters, updates none "
            f"of the {type(model).__name__} that the loop trains, but parameters of another model, "
            "or of one from before it was moved or copied. Give a factory, which is called with "
            f"the parameters of loop.model: partial({type(optimizer).__name__}, lr=...)"
        )


def check_scheduler(scheduler: Any, optimizer: Any) -> None:
    """Check that a scheduler changes the learning rates of an optimizer.

    Args:
        scheduler: the scheduler, or what a factory returned.
        optimizer: the optimizer.

    Raises:
        ArgumentError: it is no scheduler, or of an optimizer of other parameters.
    """
    if not hasattr(scheduler, "step"):
        raise ArgumentError(f"the factory given as scheduler returned {scheduler!r}, no scheduler")
    # not by identity: one of the two may be wrapped
    other = _parameters(getattr(scheduler, "optimizer", optimizer))
    if other and not other & _parameters(optimizer):
        raise ArgumentError(
            f"scheduler, a {type(scheduler).__name__}, belongs to another optimizer than the one "
            "that steps, so it would change nothing. Give a factory of it, which is called with "
            f"loop.optimizer: partial({type(scheduler).__name__}, ...)"
        )


def _parameters(optimizer: Any) -> set[int]:
    groups = getattr(optimizer, "param_groups", ())
    return {id(parameter) for group in groups for parameter in group["params"]}


def wrong_loss_error(loss: Any) -> ArgumentError:
    """Return the error for a loss that is no single number, or in training not in a tensor."""
    if isinstance(loss, torch.Tensor):
        return ArgumentError(
            f"loss_func returned a tensor of shape {tuple(loss.shape)}, but has to return the mean "
            "loss of the batch, a tensor without dimensions: give it reduction='mean', or call "
            ".mean() on what it returns"
        )
    return ArgumentError(
        f"loss_func returned a {type(loss).__name__}, {loss!r:.80}, but has to return the mean "
        "loss of the batch, a tensor without dimensions. From a number, such as .item(), no "
        "gradient can be computed"
    )


def no_loss_error(output: Any) -> ArgumentError:
    """Return the error for a training or validation batch of which a model returned no loss."""
    return ArgumentError(
        f"loss_func is None, so the model has to return its loss, but it returned "
        f"{describe(output)}: no mapping or object with 'loss', no mapping of losses, and no tuple "
        "that begins with one. Many models need the targets for that: use('supervised', ..., "
        "call='kwargs') calls model(**batch)"
    )


def no_targets_error(phase: str, batch: Any) -> ArgumentError:
    """Return the error for a training or validation batch in which no targets are found."""
    return ArgumentError(
        f"a batch of {phase} data has no targets: it is {describe(batch)}, neither a pair nor a "
        "mapping with 'inputs' and 'targets'. Say where they are: use('supervised', ..., "
        f"split=function), such as {suggested_split(batch)}. The model is called with the inputs "
        "alone"
    )


def note_whole_batch(error: Exception, batch: Any) -> None:
    """Add a note to an error of a model that was given a whole batch, if that has parts."""
    if isinstance(batch, Mapping | list | tuple):
        error.add_note(
            f"ttl: 'supervised' gave the model the whole batch, {describe(batch)}, as it is "
            "neither a pair nor a mapping with 'inputs' and 'targets'. If that is wrong, say "
            f"where the inputs are: use('supervised', ..., {suggested_split(batch)})"
        )


def note_missing_graph(error: Exception, loss: torch.Tensor) -> None:
    """Add a note to an error of backward(), if the loss depends on no parameter."""
    if not loss.requires_grad:
        error.add_note(
            "ttl: the loss has no graph that leads to a parameter. Either all parameters are "
            "frozen, or loss_func computes with detached values, such as x.item() or x.argmax()"
        )


def note_loss_arguments(error: Exception, scores: Any, targets: Any) -> None:
    """Add a note to an error of a loss function, with the types and shapes that it was given."""
    error.add_note(
        f"ttl: loss_func was called with scores {describe_batch(scores)} and targets "
        f"{describe_batch(targets)}. It may be a function that takes from them what it needs: "
        "lambda scores, targets: ..."
    )


def note_devices(error: Exception, **values: Any) -> None:
    """Add a note to an error, if values that were computed with are on several devices.

    Args:
        error: the error.
        **values: modules, or nested structures of tensors, by what they are.
    """
    devices = {name: {str(tensor.device) for tensor in _tensors(v)} for name, v in values.items()}
    devices = {name: found for name, found in devices.items() if found}
    if len(set().union(*devices.values())) > 1:
        where = "; ".join(f"{name}: {', '.join(sorted(on))}" for name, on in devices.items())
        error.add_note(
            f"ttl: not all is on one device ({where}). use('supervised', ..., device='auto') puts "
            "the model, loss_func and the tensors of batches on the best one. With device=None "
            "that is yours to do; objects in batches are moved if they have a method to(device)"
        )


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, torch.nn.Module):
        yield from value.parameters()
        yield from value.buffers()
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)
