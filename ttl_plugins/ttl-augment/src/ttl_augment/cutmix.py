"""The component `cutmix`."""

from __future__ import annotations

import math

import torch

from ttl_augment.mixing import Mixing
from ttl_core import RunError


class Cutmix(Mixing):
    """Batches of images in which a rectangle of each is of another one, and so are their targets.

    In training, `loop.batch` holds such images and the shares of classes by area as targets, which
    cross-entropy takes; all that belongs to the batch is in it. In on_batch_end it holds the target
    with the larger share instead, as metrics need. Other phases see the data as they are.

    Args:
        alpha: both parameters of the beta distribution that shares are drawn from; one share and
            one rectangle for each batch.
        n_classes: the number of classes, where targets are classes by number.
        probability: how likely a batch is mixed. Where another component has mixed it already, it
            stays as it is.
        seed: the seed of the random numbers, which are the component's own.

    Raises:
        ArgumentError: an argument has an unusable value.
        RunError: in training, inputs are no images, of shape (samples, ..., height, width).

    Example:
        >>> from ttl_core import LoopComponent, TrainTestLoop
        >>> class Show(LoopComponent):
        ...     def on_batch_begin(self, loop):
        ...         images, targets = loop.batch
        ...         print(images.shape, targets.shape)
        >>> data = [(torch.randn(8, 3, 16, 16), torch.randint(0, 10, (8,)))]
        >>> loop = TrainTestLoop(torch.nn.Identity(), [Cutmix(n_classes=10), Show()], data)
        >>> loop.train(n_epochs=1)
        torch.Size([8, 3, 16, 16]) torch.Size([8, 10])
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        n_classes: int | None = None,
        probability: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(alpha, n_classes, probability, seed)

    def mix(
        self, inputs: torch.Tensor, order: torch.Tensor, share: float
    ) -> tuple[torch.Tensor, float]:
        """Return images with a rectangle of others, and the share of their own area.

        Args:
            inputs: the images.
            order: which image each rectangle is of.
            share: the share that was drawn; at the border a rectangle is cut off.

        Raises:
            RunError: inputs have fewer than three dimensions.
        """
        if inputs.dim() < 3:
            raise RunError(
                f"'cutmix' cannot cut inputs of shape {tuple(inputs.shape)}: they have to be "
                "images, of shape (samples, ..., height, width)"
            )
        height, width = inputs.shape[-2:]
        ratio = math.sqrt(1 - share) / 2
        y, x = self._random.random(), self._random.random()
        top, bottom = _bounds(y * height, ratio * height, height)
        left, right = _bounds(x * width, ratio * width, width)
        mixed = inputs.clone()
        mixed[..., top:bottom, left:right] = inputs[..., top:bottom, left:right][order]
        return mixed, 1 - (bottom - top) * (right - left) / (height * width)


def _bounds(center: float, half: float, size: int) -> tuple[int, int]:
    return max(round(center - half), 0), min(round(center + half), size)
