"""What every network shares: the input's size, the two heads, and the settings that rebuild it."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from ptychow.errors import InputError

HEADS = ("polar", "complex")


class PatternNetwork(nn.Module):
    """Diffraction pattern in, object patch out.

    A network defines `maps`; the heads are the same for all and have no parameters, so that weights fit
    whatever the heads' settings:

    * "polar": amplitude = amplitude_max * sigmoid(first map), phase = pi * tanh(second map), the ranges of
      PtychoNN.
    * "complex": the maps are real and imaginary part of the patch, linear and unbounded; `amplitude_max`
      plays no part.

    settings: what `ptychow.networks.build` needs to make this network again, in JSON's types, weights aside.
    size_multiple: rows and columns of the input must be multiples of it.
    """

    def __init__(self, *, size_multiple: int, amplitude_max: float, heads: str, **settings: Any) -> None:
        super().__init__()
        if heads not in HEADS:
            raise InputError("unknown heads", field="heads", found=heads, expected=" or ".join(HEADS))
        if not (math.isfinite(amplitude_max) and amplitude_max > 0):
            raise InputError(
                "not an amplitude", field="amplitude_max", found=amplitude_max, expected="a positive number"
            )
        self.size_multiple = size_multiple
        self.amplitude_max = amplitude_max
        self.heads = heads
        self.settings: dict[str, Any] = {**settings, "amplitude_max": amplitude_max, "heads": heads}

    def forward(self, patterns: Tensor) -> tuple[Tensor, Tensor]:
        """Amplitude and phase (radians), each (N, 1, H, W), of prepared patterns (N, 1, H, W).

        Both come in at least float32, whatever precision the layers ran in. Raises InputError for another
        rank or for sizes that are no multiples of `size_multiple`.
        """
        self._check(patterns)
        # Half precision resolves phases only to 1/128 rad: the heads are computed in full.
        first, second = (m.to(torch.promote_types(m.dtype, torch.float32)) for m in self.maps(patterns))
        if self.heads == "polar":
            return self.amplitude_max * torch.sigmoid(first), math.pi * torch.tanh(second)
        return _polar(first, second)

    @abstractmethod
    def maps(self, patterns: Tensor) -> tuple[Tensor, Tensor]:
        """The two maps (N, 1, H, W) that the heads turn into amplitude and phase."""

    def _check(self, patterns: Tensor) -> None:
        multiple = self.size_multiple
        if patterns.ndim != 4 or patterns.shape[1] != 1:
            raise InputError(
                "not patterns", field="input", found=f"shape {tuple(patterns.shape)}", expected="(N, 1, H, W)"
            )
        height, width = patterns.shape[2:]
        if height % multiple or width % multiple or not (height and width):
            raise InputError(
                "a frame size this network does not take",
                field="input",
                found=f"{height} x {width}",
                expected=f"multiples of {multiple}, such as 64, 128 or 256",
                remedy="Crop or bin the frames in their preparation",
            )


def _polar(real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
    """Modulus and angle of a complex map, with gradients that stay finite where it is (nearly) zero."""
    power = real.square() + imaginary.square()
    lit = power > 1e-12
    amplitude = torch.where(lit, power, 1e-12).sqrt()
    phase = torch.atan2(torch.where(lit, imaginary, 0.0), torch.where(lit, real, 1.0))
    return amplitude, phase
