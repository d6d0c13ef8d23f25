"""The CVAE without shared weights: locally connected layers."""

import torch
from torch import Tensor, nn

from vae_core.models.conv import ConvVAE


class LocalVAE(ConvVAE):
    """The CVAE without shared weights: each location of a map has filters of its own."""

    name, title, colour = "local", "locally connected", "#3d8f5f"
    memory_format = torch.contiguous_format

    def __init__(self, latent_dim, image_shape):
        super().__init__(latent_dim, image_shape)
        size = image_shape[1:]
        for layers in (self.encoder, self.decoder):
            for index, layer in enumerate(layers):
                if isinstance(layer, nn.Conv2d):
                    layers[index] = LocalConv(layer.in_channels, layer.out_channels, size)
                elif isinstance(layer, nn.ConvTranspose2d):
                    layers[index] = LocalConvTranspose(layer.in_channels, layer.out_channels, size)
                else:
                    continue
                size = layers[index].output_size


class LocalConv(nn.Module):
    """A convolution of kernel 4, stride 2, padding 1 with its own weights at each location.

    Maps [N, C, H, W] become [N, C', H/2, W/2]. In between they are laid out as [H, W, N, C], so
    that each location is one matrix product.
    """

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int]):
        super().__init__()
        self.output_size = height, width = size[0] // 2, size[1] // 2
        inputs = 16 * in_channels  # values in a window of 4×4
        self.weight = uniform_parameter(height * width, inputs, out_channels, inputs=inputs)
        self.bias = uniform_parameter(height * width, 1, out_channels, inputs=inputs)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of half the height and width."""
        height, width = self.output_size
        padded = nn.functional.pad(maps.permute(2, 3, 0, 1), (0, 0, 0, 0, 1, 1, 1, 1))
        windows = [
            padded[row : row + 2 * height : 2, column : column + 2 * width : 2]
            for row in range(4)
            for column in range(4)
        ]
        windows = torch.cat(windows, dim=3).flatten(0, 1)
        outputs = torch.baddbmm(self.bias, windows, self.weight)
        return outputs.unflatten(0, self.output_size).permute(2, 3, 0, 1)


class LocalConvTranspose(nn.Module):
    """The mirror of `LocalConv`: [N, C, H, W] to [N, C', 2H, 2W]."""

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int]):
        super().__init__()
        self.output_size = 2 * size[0], 2 * size[1]
        # torch counts the inputs of a transposed convolution by its outputs.
        inputs = 16 * out_channels
        self.weight = uniform_parameter(
            size[0] * size[1], in_channels, 16 * out_channels, inputs=inputs
        )
        self.bias = uniform_parameter(*self.output_size, 1, out_channels, inputs=inputs)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of double the height and width."""
        maps = maps.permute(2, 3, 0, 1)
        windows = torch.bmm(maps.flatten(0, 1), self.weight)  # a window of 4×4 for each location
        windows = windows.view(*maps.shape[:3], 4, 4, -1)
        summed = self.add_overlaps(self.add_overlaps(windows, 0), 1)
        return (summed + self.bias).permute(2, 3, 0, 1)

    @staticmethod
    def add_overlaps(windows: Tensor, axis: int) -> Tensor:
        """Add the windows up along one axis; neighbours overlap by one value on either side."""
        before, first, second, after = windows.unbind(3)
        other_axes = [0, 0] * (first.dim() - 1 - axis)
        first = first + nn.functional.pad(after, [*other_axes, 1, -1])
        second = second + nn.functional.pad(before, [*other_axes, -1, 1])
        return torch.stack([first, second], axis + 1).flatten(axis, axis + 1)


def uniform_parameter(*shape: int, inputs: int) -> nn.Parameter:
    """Return a parameter initialised as torch initialises a layer with this many inputs."""
    bound = inputs**-0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
