"""The torch engines: PyTorch as it is, and compiled, on the CPU or an accelerator."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray

from ptychow.devices import choose_device
from ptychow.engines.base import Engine
from ptychow.model import Model


class TorchEngine(Engine):
    """Runs a Model's network as it is. threads: of the whole process, which is torch's way."""

    name = "torch"
    layout = torch.channels_last

    def __init__(
        self,
        model: Model,
        device: str = "auto",
        precision: str = "fp32",
        threads: int | None = None,
        batch: int = 64,
    ) -> None:
        self.device = choose_device(device)
        self.precision = precision
        self.amplitude_scale = model.card.amplitude_scale
        if threads is not None:
            torch.set_num_threads(threads)
        # Moved, the Model's own would be gone for everybody else who uses it.
        network = model.network if self.device == "cpu" else deepcopy(model.network)
        self.network = network.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]

    @torch.inference_mode()
    def predict(self, inputs: NDArray[np.float32]) -> NDArray[np.complex64]:
        """Complex patches (b, n, n) of prepared frames (b, 1, n, n)."""
        patterns = torch.from_numpy(inputs).to(self.device, memory_format=self.layout)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.precision == "bf16"):
            amplitude, phase = self.network(patterns)
        patches = torch.polar(amplitude[:, 0].float() * self.amplitude_scale, phase[:, 0].float())
        return patches.cpu().numpy()


class CompiledEngine(TorchEngine):
    """The network compiled for this machine at its first batch, which takes minutes."""

    name = "torch-compiled"

    def __init__(
        self,
        model: Model,
        device: str = "auto",
        precision: str = "fp32",
        threads: int | None = None,
        batch: int = 64,
    ) -> None:
        super().__init__(model, device, precision, threads, batch)
        self.batch = batch
        self.network = torch.compile(self.network)

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[np.complex64]:
        """Complex patches (b, n, n) of prepared frames (b, 1, n, n), run `batch` at a time: each shape is compiled."""
        patches = np.empty((len(inputs), *inputs.shape[2:]), np.complex64)
        for start in range(0, len(inputs), self.batch):
            part = inputs[start : start + self.batch]
            padding = [(0, self.batch - len(part))] + [(0, 0)] * 3
            patches[start : start + len(part)] = super().predict(np.pad(part, padding))[: len(part)]
        return patches
