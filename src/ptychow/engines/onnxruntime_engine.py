"""The ONNX Runtime engine: on the CPU, or on CUDA where onnxruntime-gpu is installed."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from ptychow.devices import choose_device
from ptychow.engines.base import Engine
from ptychow.engines.graph import INPUT, chunk_frames, onnx_graph, to_patches
from ptychow.engines.quantise import quantise
from ptychow.model import Model

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntimeEngine(Engine):
    """Chunks of frames that fit the cache, one after the other.

    inputs: prepared frames (b, 1, n, n) that int8 is calibrated on. Raises InputError for other devices than cpu, and
    cuda where the provider is there.
    """

    name = "onnxruntime"

    def __init__(
        self,
        model: Model,
        device: str = "auto",
        precision: str = "fp32",
        threads: int | None = None,
        batch: int = 64,
        inputs: NDArray[np.float32] | None = None,
    ) -> None:
        there = onnxruntime.get_available_providers()
        usable = tuple(name for name, provider in PROVIDERS.items() if provider in there)
        self.device = choose_device(device, usable)
        self.precision = precision
        graph = onnx_graph(model)
        if precision == "int8":
            assert inputs is not None
            graph = quantise(graph, inputs)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        kind, _, number = self.device.partition(":")
        provider = (PROVIDERS[kind], {"device_id": number}) if number and kind != "cpu" else PROVIDERS[kind]
        self.session = onnxruntime.InferenceSession(graph, options, providers=[provider])
        self.size = model.patch_size
        self.chunk = chunk_frames(self.size, batch) if self.device == "cpu" else batch

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[np.complex64]:
        """Complex patches (b, n, n) of prepared frames (b, 1, n, n)."""
        patches = np.empty((len(inputs), self.size, self.size), np.complex64)
        for start in range(0, len(inputs), self.chunk):
            part = slice(start, start + self.chunk)
            patches[part] = to_patches(*self.session.run(None, {INPUT: np.ascontiguousarray(inputs[part])}))
        return patches
