"""The OpenVINO engine: Intel's compiler for inference, on the CPU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import openvino
import torch
from numpy.typing import NDArray

from ptychow.devices import choose_device
from ptychow.engines.base import Engine
from ptychow.engines.graph import chunk_frames, onnx_graph, to_patches
from ptychow.engines.quantise import quantise
from ptychow.errors import InputError
from ptychow.model import Model


class OpenVinoEngine(Engine):
    """Chunks of frames that fit the cache, as many at the same time as there are threads.

    inputs: prepared frames (b, 1, n, n) that int8 is calibrated on.
    Raises InputError for another device than the CPU, and for bf16 where the CPU has no instructions for it.
    """

    name = "openvino"

    def __init__(
        self,
        model: Model,
        device: str = "auto",
        precision: str = "fp32",
        threads: int | None = None,
        batch: int = 64,
        inputs: NDArray[np.float32] | None = None,
    ) -> None:
        self.device = "cpu" if device == "auto" else choose_device(device, ("cpu",))
        self.precision = precision
        core = openvino.Core()
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and "BF16" not in capabilities:
            raise InputError("not on this CPU", field="precision", found=precision, expected="fp32 or int8")
        matrix_units = precision != "fp32"
        graph = onnx_graph(model, merge=matrix_units)
        if precision == "int8":
            assert inputs is not None
            graph = quantise(graph, inputs)
        threads = threads or torch.get_num_threads()
        self.size = model.patch_size
        self.chunk = chunk_frames(self.size, math.ceil(batch / threads))
        network = core.read_model(graph)
        # Fixed shapes run a fifth faster than free ones: the last chunk is filled up instead.
        network.reshape([self.chunk, 1, self.size, self.size])
        streams = min(threads, math.ceil(batch / self.chunk))
        compiled = core.compile_model(
            network,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "bf16" if matrix_units and "BF16" in capabilities else "f32",
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": streams,
                # Pinned threads of two processes wait for one core while another idles.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self.queue = openvino.AsyncInferQueue(compiled, streams)

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[np.complex64]:
        """Complex patches (b, n, n) of prepared frames (b, 1, n, n). Not from two threads at a time."""
        patches = np.empty((len(inputs), self.size, self.size), np.complex64)

        def take(request: Any, start: int) -> None:
            amplitude, phase = (request.get_output_tensor(output).data for output in (0, 1))
            here = patches[start : start + self.chunk]
            here[:] = to_patches(amplitude, phase)[: len(here)]

        self.queue.set_callback(take)
        for start in range(0, len(inputs), self.chunk):
            part = inputs[start : start + self.chunk]
            if len(part) < self.chunk:
                part = np.concatenate([part, np.zeros((self.chunk - len(part), *part.shape[1:]), np.float32)])
            self.queue.start_async([part], start)
        self.queue.wait_all()
        return patches
