"""The component `mixup`."""

from __future__ import annotations

import torch

from ttl_augment.mixing import Mixing


class Mixup(Mixing):
    """Batches in which each sample is a weighted mean of two, and so are their targets.

    In training, `loop.batch` holds mixed inputs and the shares of classes as targets, which
    cross-entropy takes; all that belongs to the batch is in it. In on_batch_end it holds the target
    with the larger share instead, as metrics need. Targets that are floating-point numbers are
    mixed as they are. Other phases see the data as they are.

    Args:
        alpha: both parameters of the beta distribution that shares are drawn from; one share for
            each batch.
        n_classes: the number of classes, where targets are classes by number.
        probability: how likely a batch is mixed. Where another component has mixed it already, it
            stays as it is.
        seed: the seed of the random numbers, which are the component's own.

    Raises:
        ArgumentError: an argument has an unusable value.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Mixup(n_classes=2), Step()],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        >>> loop.batch[1].shape
        torch.Size([6, 2])
    """

    def __init__(
        self,
        alpha: float = 0.2,
        *,
        n_classes: int | None = None,
        probability: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(alpha, n_classes, probability, seed)

    def mix(
        self, inputs: torch.Tensor, order: torch.Tensor, share: float
    ) -> tuple[torch.Tensor, float]:
        """Return the weighted means of samples.

        Args:
            inputs: the inputs.
            order: which sample each one is mixed with.
            share: the share of the samples themselves.
        """
        return torch.lerp(inputs[order], inputs, share), share
