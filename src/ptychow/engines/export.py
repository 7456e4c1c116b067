"""A Model as one file for a machine without PtychoW: ONNX, OpenVINO's IR, or a PyTorch exported program."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptychow.engines.accuracy import simulated_inputs
from ptychow.engines.graph import INPUT, Predictor, export_onnx, to_patches
from ptychow.engines.prepared import PreparedFrames
from ptychow.engines.torch_engine import TorchEngine
from ptychow.errors import InputError, MissingExtraError, PtychoWError
from ptychow.files import atomic_path
from ptychow.model import Model
from ptychow.optics.simulate import stream

ENDINGS = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
COUNTS_INPUT = "counts"
COUNT_TYPES = ("uint16", "uint32")
# Largest difference of a written file's patches from the Model's, relative to the largest amplitude.
TOLERANCE = 1e-3
CHECKED = 8
METADATA = "ptychow"

Run = Callable[[NDArray[Any]], tuple[NDArray[np.float32], NDArray[np.float32]]]


@dataclass(frozen=True)
class Exported:
    """files: what was written. input, input_shape, input_type: what it takes ("batch" stands for any number).

    difference: of the file's patches from the Model's, relative to the largest amplitude, as the check found it.
    """

    files: tuple[Path, ...]
    input: str
    input_shape: tuple[int | str, ...]
    input_type: str
    difference: float


class _FromCounts(nn.Module):
    """Raw counts (b, H, W) to amplitude and phase (b, 1, n, n)."""

    def __init__(self, model: Model, predictor: Predictor) -> None:
        super().__init__()
        self.prepare = PreparedFrames(model.card.preparation, model.card.frame_shape)
        self.predictor = predictor

    def forward(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        amplitude, phase = self.predictor(self.prepare(counts))
        return amplitude, phase


def export(
    model: Model,
    path: str | Path,
    to: str = "onnx",
    *,
    preparation_inside: bool = False,
    counts: str = "uint16",
    batch: int | None = None,
) -> Exported:
    """Write the Model's network for another runtime, and check what was written against the Model.

    to: "onnx" (`.onnx`), "openvino" (`.xml` with its `.bin` beside it) or "torch" (`.pt2`, `torch.export`).
    preparation_inside: the file takes raw frames (b, H, W) of type `counts` ("uint16" or "uint32"), scaled by the
    Model's own count scale, instead of prepared ones (b, 1, n, n) float32. batch: fixed, or None for any.
    The file gives amplitude and phase (radians), (b, 1, n, n) float32, and carries the Model's card as JSON under
    "ptychow": ONNX metadata, OpenVINO runtime information, or an extra file.

    Only a file that has passed the check gets its name. Raises InputError for what cannot be exported and for a `.bin`
    of something else in the way, MissingExtraError without the format's library, PtychoWError where the written file
    gives other patches than the Model.
    """
    path = Path(path)
    if to not in ENDINGS:
        raise InputError("unknown format", field="to", found=to, expected=" or ".join(ENDINGS))
    if path.suffix != ENDINGS[to]:
        raise InputError("another ending", file=path, field="output", found=path.suffix, expected=ENDINGS[to])
    if to == "openvino" and path.with_suffix(".bin").exists() and not path.exists():
        raise InputError("would be overwritten by the weights", file=path.with_suffix(".bin"), field="output")
    if counts not in COUNT_TYPES:
        raise InputError("unknown counts", field="counts", found=counts, expected=" or ".join(COUNT_TYPES))
    if preparation_inside and to == "torch":
        raise InputError("not in a PyTorch file", field="--preparation-inside", expected="--to onnx or openvino")
    predictor = Predictor(model, merge=False)
    module: nn.Module = _FromCounts(model, predictor) if preparation_inside else predictor
    frames = _frames(model, counts) if preparation_inside else simulated_inputs(model, CHECKED)
    name = COUNTS_INPUT if preparation_inside else INPUT
    shape = (batch or "batch", *frames.shape[1:])
    facts = {METADATA: _card(model), "input": json.dumps([name, str(frames.dtype), shape])}
    with tempfile.TemporaryDirectory(prefix="ptychow-") as folder:
        made = Path(folder, path.name)
        try:
            if to == "torch":
                run = _write_torch(module, frames, made, batch, facts)
            else:
                graph = _onnx(module, frames, name, batch, facts)
                run = _write_onnx(graph, made) if to == "onnx" else _write_openvino(graph, made, facts)
        except ImportError:
            raise MissingExtraError(f"export to {to}", "fast") from None
        difference = _check(model, frames, run, batch or CHECKED, path)
        # OpenVINO's weights (.bin) come before what refers to them (.xml).
        files = tuple(path.with_name(written.name) for written in sorted(made.parent.iterdir()))
        for file in files:
            with atomic_path(file) as temporary:
                shutil.copyfile(made.with_name(file.name), temporary)
    return Exported(files, name, shape, str(frames.dtype), difference)


def _card(model: Model) -> str:
    """The Model's card as JSON, without how it was trained."""
    return model.card.model_dump_json(exclude={"data", "recipe", "training"})


def _frames(model: Model, counts: str) -> NDArray[Any]:
    """Raw frames (n, H, W) to check with: noise about as bright as what the Model was trained on."""
    height, width = model.card.frame_shape
    rng = stream(0, 0)
    mean = (model.card.counts_per_frame or 1e5) / (height * width)
    return rng.poisson(2 * mean * rng.random((CHECKED, height, width))).astype(counts)


def _onnx(module: nn.Module, frames: NDArray[Any], name: str, batch: int | None, facts: dict[str, str]) -> Any:
    """The module as an ONNX model of the frames' type, with its metadata."""
    import onnx

    model = onnx.load_from_string(export_onnx(module, torch.from_numpy(frames[:2].astype(np.float32)), name))
    graph = model.graph
    if frames.dtype != np.float32:
        # PyTorch traces floating point; the counts are converted by the graph's first node.
        for node in graph.node:
            for index, used in enumerate(node.input):
                if used == name:
                    node.input[index] = f"{name}_float"
        graph.node.insert(0, onnx.helper.make_node("Cast", [name], [f"{name}_float"], to=onnx.TensorProto.FLOAT))
        graph.input[0].type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(frames.dtype)
    if batch is not None:
        for port in (*graph.input, *graph.output):
            port.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    return model


def _write_onnx(graph: Any, path: Path) -> Run:
    import onnxruntime

    path.write_bytes(graph.SerializeToString())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda frames: tuple(session.run(None, {session.get_inputs()[0].name: frames}))


def _write_openvino(graph: Any, path: Path, facts: dict[str, str]) -> Run:
    import openvino

    core = openvino.Core()
    network = core.read_model(graph.SerializeToString())
    for key, value in facts.items():
        network.set_rt_info(value, [METADATA, key])
    openvino.save_model(network, path, compress_to_fp16=False)
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(frames: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        amplitude, phase = compiled([frames]).values()
        return amplitude, phase

    return run


def _write_torch(module: nn.Module, frames: NDArray[Any], path: Path, batch: int | None, facts: dict[str, str]) -> Run:
    example = torch.from_numpy(np.resize(frames, (batch or 2, *frames.shape[1:])))
    free = None if batch else ({0: torch.export.Dim("batch", min=1)},)
    with torch.no_grad():
        program = torch.export.export(module, (example,), dynamic_shapes=free)
    torch.export.save(program, path, extra_files=facts)
    loaded = torch.export.load(path).module()

    def run(frames: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.no_grad():
            amplitude, phase = loaded(torch.from_numpy(frames))
        return amplitude.numpy(), phase.numpy()

    return run


def _check(model: Model, frames: NDArray[Any], run: Run, batch: int, path: Path) -> float:
    """The written file's largest difference from the Model, relative to the largest amplitude; else PtychoWError."""
    frames = np.resize(frames, (batch, *frames.shape[1:]))
    inputs = frames if frames.ndim == 4 else model.card.preparation.apply(frames)
    expected = TorchEngine(model, "cpu").predict(inputs)
    difference = float(np.abs(to_patches(*run(frames)) - expected).max() / np.abs(expected).max())
    if not difference <= TOLERANCE:
        raise PtychoWError(f"{path}: gives patches that differ from the Model's by {difference:.2g} of their size")
    return difference
