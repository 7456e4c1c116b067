"""int8: an ONNX graph with its convolutions quantised, after calibration on frames."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

CALIBRATION_BATCH = 16


class _Reader(CalibrationDataReader):
    """Frames as ONNX Runtime's calibration asks for them."""

    def __init__(self, name: str, inputs: NDArray[np.float32]) -> None:
        parts = range(0, len(inputs), CALIBRATION_BATCH)
        self._batches: Iterator[dict[str, NDArray[np.float32]]] = (
            {name: inputs[start : start + CALIBRATION_BATCH]} for start in parts
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._batches, None)


def quantise(graph: bytes, inputs: NDArray[np.float32]) -> bytes:
    """The ONNX graph with 8-bit convolutions: weights by channel, layers' inputs by their range over `inputs`.

    The first convolution (which sees the pattern) and those before the heads' doubling stay in floating point, as do
    norms, attention and heads. inputs: prepared frames (b, 1, n, n).
    """
    with tempfile.TemporaryDirectory(prefix="ptychow-") as folder:
        plain, ready, made = (Path(folder, name) for name in ("plain.onnx", "ready.onnx", "made.onnx"))
        plain.write_bytes(graph)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        model = onnx.load(ready)
        logger = logging.getLogger()
        before, logger.disabled = logger.disabled, True  # the library warns its root logger of nothing that matters
        try:
            quantize_static(
                ready,
                made,
                _Reader(model.graph.input[0].name, inputs),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=_kept(model),
            )
        finally:
            logger.disabled = before
        return made.read_bytes()


def _kept(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions that stay as they are."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    first = convolutions[0].name
    return [first, *(node.name for node in convolutions if weights[node.input[1]][0] == 9)]
