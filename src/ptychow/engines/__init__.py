"""What runs a network: prepared frames in, complex patches out. Importing this package imports no engine's library.

To add an engine: write one file with a subclass of `ptychow.engines.base.Engine`, and add its line to `ENGINES`. The
tests run over the registry.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ptychow.errors import InputError, MissingExtraError, PtychoWError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ptychow.engines.base import Engine
    from ptychow.model import Model

PRECISIONS = ("fp32", "bf16", "int8")
# Frames at a time where nobody asks for another number.
DEFAULT_BATCH = 64
COMPILERS = ("c++", "g++", "clang++")


@dataclass(frozen=True)
class EngineSpec:
    """An engine that can be opened by name.

    title: a few words for tables and help. module, factory: where its `Engine` class is.
    precisions: what it can run in, the most exact first. needs: libraries that must be installed.
    compiles: needs a C++ compiler, and minutes to start: only for those who ask for it by name.
    """

    title: str
    module: str
    factory: str
    precisions: tuple[str, ...]
    needs: tuple[str, ...] = ()
    compiles: bool = False

    def missing(self) -> list[str]:
        """What it needs and is not here."""
        missing = [library for library in self.needs if find_spec(library) is None]
        return missing + (["a C++ compiler"] if self.compiles and compiler() is None else [])


ENGINES: dict[str, EngineSpec] = {
    "torch": EngineSpec("PyTorch, eager", "ptychow.engines.torch_engine", "TorchEngine", ("fp32", "bf16")),
    "torch-compiled": EngineSpec(
        "PyTorch, compiled", "ptychow.engines.torch_engine", "CompiledEngine", ("fp32", "bf16"), compiles=True
    ),
    "openvino": EngineSpec(
        "OpenVINO",
        "ptychow.engines.openvino_engine",
        "OpenVinoEngine",
        ("fp32", "bf16", "int8"),
        ("openvino", "onnx", "onnxruntime"),
    ),
    "onnxruntime": EngineSpec(
        "ONNX Runtime",
        "ptychow.engines.onnxruntime_engine",
        "OnnxRuntimeEngine",
        ("fp32", "int8"),
        ("onnx", "onnxruntime"),
    ),
}


def compiler() -> str | None:
    """The C++ compiler of this machine, or None."""
    return next((found for name in COMPILERS if (found := shutil.which(name))), None)


def open_engine(
    model: Model,
    engine: str = "torch",
    precision: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    batch: int = DEFAULT_BATCH,
    inputs: NDArray[np.float32] | None = None,
) -> Engine:
    """The Model's network, ready to run.

    engine: a name in `ENGINES`, or "auto": the fastest here whose precision costs no accuracy (`choice.choose`).
    precision: one of the engine's; by default fp32, and with "auto" any. device: "auto", "cpu", "cuda", "mps" or
    "xpu". threads: CPU threads, or None for torch's number. batch: frames that `predict` will mostly be given; any
    other number works too. inputs: prepared frames (b, 1, n, n) to calibrate int8 and to judge accuracy by; simulated
    ones where not given.

    Raises InputError for what does not exist, MissingExtraError where the engine's library is not installed, and
    PtychoWError where int8 costs more accuracy than `accuracy.LIMIT`.
    """
    if engine == "auto":
        from ptychow.engines.choice import choose

        chosen = choose(model, precision, device, threads, batch, inputs)
        engine, precision = chosen.engine, chosen.precision
    precision = precision or "fp32"
    spec = _spec(engine)
    if precision not in spec.precisions:
        expected = " or ".join(spec.precisions)
        raise InputError(f"not a precision of {engine}", field="precision", found=precision, expected=expected)
    if precision == "int8":
        return _open_int8(model, spec, device, threads, batch, inputs)
    factory = getattr(import_module(spec.module), spec.factory)
    return factory(model, precision=precision, device=device, threads=threads, batch=batch)


def _spec(engine: str) -> EngineSpec:
    """The engine's line in the registry, if it can be opened here."""
    if engine not in ENGINES:
        raise InputError("unknown engine", field="engine", found=engine, expected=", ".join(["auto", *ENGINES]))
    spec = ENGINES[engine]
    if any(library in spec.needs for library in spec.missing()):
        raise MissingExtraError(f"the engine {engine}", "fast")
    if spec.missing():
        raise PtychoWError(f"the engine {engine} needs {', '.join(spec.missing())}")
    return spec


def _open_int8(
    model: Model,
    spec: EngineSpec,
    device: str,
    threads: int | None,
    batch: int,
    inputs: NDArray[np.float32] | None,
) -> Engine:
    """An int8 engine, calibrated, and checked against the network as it was trained."""
    from ptychow.engines.accuracy import phase_cost, require_accuracy, simulated_inputs
    from ptychow.engines.torch_engine import TorchEngine

    inputs = simulated_inputs(model) if inputs is None else inputs
    factory = getattr(import_module(spec.module), spec.factory)
    opened = factory(model, precision="int8", device=device, threads=threads, batch=batch, inputs=inputs)
    cost = phase_cost(model, opened.predict(inputs), TorchEngine(model, "cpu").predict(inputs))
    require_accuracy(f"int8 in {spec.title}", cost)
    return opened
