"""The networks of the study, for 32x32 images, by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from topognn.errors import unknown_name
from topognn.models.mobile import mobilenet_v2
from topognn.models.residual import resnet20, resnet32, wide_resnet28_2
from topognn.models.vgg import conv6

__all__ = ["MODELS", "conv6", "get_model", "mobilenet_v2", "resnet20", "resnet32", "wide_resnet28_2"]

MODELS: dict[str, Callable[..., nn.Module]] = {
    model.__name__: model for model in (conv6, resnet20, resnet32, wide_resnet28_2, mobilenet_v2)
}


def get_model(name: str, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Return a new network of the study, its weights drawn from torch's random state.

    Args:
        name: a key of ``MODELS``.
        num_classes: length of the output.
        in_channels: channels of the input image.

    Returns:
        A module from float32 images ``(N, in_channels, 32, 32)`` to scores ``(N, num_classes)``.

    Raises:
        UnknownNameError: there is no such model.

    Source: the models of Cunegatti et al., TMLR 2024, section 5.

    >>> sum(weight.numel() for weight in get_model("resnet20").parameters())
    272474
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    return MODELS[name](num_classes, in_channels)
