"""Initial weights shared by all models."""

from __future__ import annotations

from torch import nn


def kaiming_init(model: nn.Module) -> None:
    """Draw every convolution and linear weight of ``model`` in place, and set their biases to zero.

    Normal with mean 0 and variance 2 / fan_in; normalisation layers keep torch's 1 and 0.

    Source: He, Zhang, Ren, Sun, *Delving Deep into Rectifiers*, ICCV 2015, section 2.2.

    >>> layer = nn.Linear(4, 2)
    >>> kaiming_init(layer)
    >>> layer.bias.tolist()
    [0.0, 0.0]
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
