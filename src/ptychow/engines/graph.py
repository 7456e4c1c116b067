"""One ONNX graph of a Model's network, for every engine that is not PyTorch."""

from __future__ import annotations

import io
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptychow.engines.fold import folded
from ptychow.model import Model

INPUT, OUTPUTS = "patterns", ("amplitude", "phase")
OPSET = 18
# About what a core's cache holds of the widest layers.
CHUNK_PIXELS = 16 * 64 * 64


class Predictor(nn.Module):
    """Prepared frames (b, 1, n, n) to amplitude, in the label's units, and phase (radians), both (b, 1, n, n)."""

    def __init__(self, model: Model, merge: bool) -> None:
        super().__init__()
        self.network = folded(model.network, model.patch_size, merge)
        self.amplitude_scale = model.card.amplitude_scale

    def forward(self, patterns: Tensor) -> tuple[Tensor, Tensor]:
        """Amplitude and phase."""
        amplitude, phase = self.network(patterns)
        return amplitude * self.amplitude_scale, phase


def onnx_graph(model: Model, merge: bool = False) -> bytes:
    """The network as ONNX (opset 18): `patterns` (batch, 1, n, n) in, `amplitude` and `phase` out, any batch.

    merge: see `folded`.
    """
    example = torch.zeros(2, 1, model.patch_size, model.patch_size)
    return export_onnx(Predictor(model, merge), example, INPUT)


def export_onnx(module: nn.Module, example: Tensor, name: str) -> bytes:
    """A module of one input and the two `OUTPUTS`, all with a free first axis, as ONNX."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # Told of Python's tests of shapes, which hold for any batch, and of the exporter's age: its successor takes
        # ten times as long and needs one more package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (example,),
            stream,  # type: ignore[arg-type]  # a file name, it says; the TorchScript exporter takes both
            dynamo=False,
            opset_version=OPSET,
            input_names=[name],
            output_names=list(OUTPUTS),
            dynamic_axes={port: {0: "batch"} for port in (name, *OUTPUTS)},
        )
    return stream.getvalue()


def chunk_frames(size: int, batch: int) -> int:
    """Frames of size x size that are best run at a time, where `batch` are there."""
    return min(batch, max(1, CHUNK_PIXELS // size**2))


def to_patches(amplitude: NDArray[np.float32], phase: NDArray[np.float32]) -> NDArray[np.complex64]:
    """Complex patches (b, n, n) of amplitude and phase (b, 1, n, n)."""
    return torch.polar(torch.from_numpy(amplitude[:, 0]), torch.from_numpy(phase[:, 0])).numpy()
