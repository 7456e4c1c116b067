"""A Preparation as a PyTorch module, so that it can be part of an exported graph: raw counts in."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from ptychow.bad_pixels import Filling
from ptychow.detector import Preparation
from ptychow.detector_steps import resample_matrix


class PreparedFrames(nn.Module):
    """Counts (b, H, W) to network input (b, 1, h, w), as `Preparation.apply` makes it of unsigned counts.

    What differs: pixels marked as invalid in single frames cannot be filled in a fixed graph, they count as 0. Those
    of the mask are filled.
    """

    pixels: Tensor

    def __init__(self, preparation: Preparation, frame_shape: tuple[int, int]) -> None:
        super().__init__()
        self.preparation = preparation
        # Crop and turn choose pixels: done to their numbers, they say which.
        chosen = preparation.crop_and_turn(np.arange(frame_shape[0] * frame_shape[1]).reshape(frame_shape))
        self.cropped = chosen.shape
        self.binned = [length // preparation.bin for length in chosen.shape]
        self.register_buffer("pixels", torch.from_numpy(chosen.reshape(-1)))
        good = preparation.replace(resample=None).output_mask(frame_shape)
        self.rings = [] if good is None or good.all() else _as_tensors(Filling.of(good), good.size)

    def forward(self, counts: Tensor) -> Tensor:
        """Network input (b, 1, h, w)."""
        own = self.preparation
        frames = counts.float().flatten(1)[:, self.pixels].reshape(-1, 1, *self.cropped)
        for marker in own.markers:
            frames = frames * (frames != marker)
        if own.saturation is not None:
            frames = frames.clamp(max=float(own.saturation))
        if own.bin > 1:
            frames = avg_pool2d(frames, own.bin) * float(own.bin**2)
        flat = frames.flatten(1)
        for order, neighbours, weights in self.rings:
            flat = torch.cat([flat, (flat[:, neighbours] * weights).sum(dim=2)], dim=1)[:, order]
        inputs = flat.reshape(-1, 1, *self.binned)
        if own.resample is not None:
            matrix = torch.from_numpy(resample_matrix(self.binned[-1], own.resample))
            inputs = matrix @ inputs @ matrix.T
        if own.threshold > 0:
            inputs = inputs * (inputs >= own.threshold)
        if own.transform == "sqrt":
            inputs = inputs.sqrt()
        inputs = inputs / own.scale_value
        return inputs if own.mean_input is None else (inputs - torch.from_numpy(own.mean_input)) / own.deviation


def _as_tensors(filling: Filling, size: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each ring: which of (all pixels, the ring's values) belongs at each pixel; neighbours, weights (k, 8)."""
    rings = []
    for pixels, neighbours, weights in filling.rings:
        order = np.arange(size)
        order[pixels] = size + np.arange(len(pixels))
        rings.append((torch.from_numpy(order), torch.from_numpy(neighbours), torch.from_numpy(weights)))
    return rings
