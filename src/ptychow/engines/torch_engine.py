"""The torch engine: eager PyTorch on the CPU or an accelerator."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ptychow.devices import choose_device
from ptychow.model import Model


class TorchEngine:
    """Runs a Model's network.

    device: "auto", "cpu", "cuda", "mps" or "xpu". precision: "fp32", or "bf16" for the layers (heads stay fp32).
    """

    def __init__(self, model: Model, device: str = "auto", precision: str = "fp32") -> None:
        self.device = torch.device(choose_device(device))
        self.half = precision == "bf16"
        self.amplitude_scale = model.card.amplitude_scale
        self.network = model.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def predict(self, inputs: NDArray[np.float32]) -> NDArray[np.complex64]:
        """Complex patches (b, n, n) of prepared frames (b, 1, n, n)."""
        patterns = torch.from_numpy(inputs).to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            amplitude, phase = self.network(patterns)
        patches = torch.polar(amplitude[:, 0].float() * self.amplitude_scale, phase[:, 0].float())
        return patches.cpu().numpy()
