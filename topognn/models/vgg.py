"""Conv-6: six convolutions in pairs, three linear layers."""

from __future__ import annotations

from torch import Tensor, nn

from topognn.models.initial import kaiming_init


class Conv6(nn.Module):
    """A small VGG: pairs of 3x3 convolutions of 64, 128, 256 channels, each pair halved by a max pooling."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (64, 128, 256):
            for _ in range(2):
                # The batch norm after each convolution makes a bias of its own pointless.
                layers += [
                    nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
                    nn.BatchNorm2d(channels),
                    nn.ReLU(),
                ]
                in_channels = channels
            layers.append(nn.MaxPool2d(2))
        self.convs1 = nn.Sequential(*layers)
        self.flatten = nn.Flatten()
        self.linear = nn.Sequential(
            nn.Linear(256 * 4 * 4, 256),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, 256),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores of images."""
        return self.linear(self.flatten(self.convs1(x)))  # type: ignore[no-any-return]


def conv6(num_classes: int = 10, in_channels: int = 3) -> Conv6:
    """Return a Conv-6 with batch norm: float32 images ``(N, in_channels, 32, 32)`` to ``(N, num_classes)``.

    The input must be 32x32, because the first linear layer reads all 256 * 4 * 4 features.

    Source: Frankle, Carbin, *The Lottery Ticket Hypothesis*, ICLR 2019, figure 2; batch norm as in Cunegatti
    et al., TMLR 2024.

    >>> import torch
    >>> conv6().eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    model = Conv6(num_classes, in_channels)
    kaiming_init(model)
    return model
