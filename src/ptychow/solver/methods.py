"""The iterative methods there are, each with the settings it works with (docs/results/solvers.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ptychow.errors import InputError

NOISE_MODELS = ("gaussian", "poisson")
# Frames that projections take at a time: one by one they loop in Python.
CHUNK = 64


@dataclass(frozen=True)
class Method:
    """An iterative method of Pty-Chi.

    name: as asked for. title: as written. source: the paper.
    batch_size: frames a step, None for a projection method, which takes all frames at once and keeps their exit waves.
    options: Pty-Chi's options with this method's settings. noise_models: the first is used unless told otherwise.
    """

    name: str
    title: str
    source: str
    batch_size: int | None
    options: Callable[[], Any]
    noise_models: tuple[str, ...] = ("gaussian",)


def _lsqml() -> Any:
    from ptychi.api.options.lsqml import LSQMLOptions

    options = LSQMLOptions()
    # Finding the probe's scale would cost an epoch: it is known from the counts.
    options.reconstructor_options.rescale_probe_intensity_in_first_epoch = False
    return options


def _epie() -> Any:
    from ptychi.api.options.pie import EPIEOptions

    options = EPIEOptions()
    # The paper's; Pty-Chi's 0.1 is slow.
    options.object_options.alpha = options.probe_options.alpha = 1.0
    return options


def _rpie() -> Any:
    from ptychi.api.options.pie import RPIEOptions

    options = RPIEOptions()
    # Pty-Chi's 0.1 is unstable on small scans and slower on real ones.
    options.object_options.alpha = options.probe_options.alpha = 0.5
    return options


def _mpie() -> Any:
    options = _rpie()
    for part in (options.object_options, options.probe_options):
        part.step_size = 0.1
        part.optimizer_params = {"momentum": 0.9, "nesterov": True}
    return options


def _dm() -> Any:
    from ptychi.api.options.dm import DMOptions

    options = DMOptions()
    options.reconstructor_options.chunk_length = CHUNK
    return options


MAIDEN = "Maiden, Johnson and Li, Optica 4, 736 (2017)"
METHODS = {
    method.name: method
    for method in (
        Method(
            "lsqml",
            "LSQML",
            "Odstrcil, Menzel and Guizar-Sicairos, Optics Express 26, 3108 (2018)",
            64,
            _lsqml,
            noise_models=NOISE_MODELS,
        ),
        Method("epie", "ePIE", "Maiden and Rodenburg, Ultramicroscopy 109, 1256 (2009)", 16, _epie),
        Method("mpie", "mPIE", MAIDEN, 16, _mpie),
        Method("rpie", "rPIE", MAIDEN, 16, _rpie),
        Method("dm", "difference map", "Thibault et al., Ultramicroscopy 109, 338 (2009)", None, _dm),
    )
}


# Known by name, and why they are not there.
LEFT_OUT = {
    "raar": "Pty-Chi 2.2's update has a sign reversed and diverges even at the true probe, see docs/results/solvers.md"
}


def method_named(name: str) -> Method:
    """The method of that name. Raises InputError where there is none."""
    if name in LEFT_OUT:
        raise InputError(f"left out: {LEFT_OUT[name]}", field="solver", found=name, expected=", ".join(METHODS))
    if name not in METHODS:
        raise InputError("unknown", field="solver", found=name, expected=", ".join(METHODS))
    return METHODS[name]
