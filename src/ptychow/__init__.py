"""PtychoW: ptychography scans to pictures with the W-Net family of neural networks.

The names below are what a script needs, one for every command; each is loaded when it is first used, so that
``import ptychow`` stays light.
"""

from importlib import import_module
from typing import Any

from ptychow._version import __version__

_HOMES = {
    "Scan": "ptychow.scan",
    "Geometry": "ptychow.scan",
    "ObjectImage": "ptychow.scan",
    "read_scan": "ptychow.formats",
    "write_scan": "ptychow.formats",
    "fetch": "ptychow.datasets",
    "inspect_scan": "ptychow.inspection",
    "Preparation": "ptychow.detector",
    "fit_preparation": "ptychow.detector_fit",
    "twin": "ptychow.optics.twins",
    "simulate": "ptychow.optics.simulate",
    "label": "ptychow.solver",
    "Model": "ptychow.model",
    "recipe_named": "ptychow.training",
    "train": "ptychow.training",
    "calibrate": "ptychow.training.label_free",
    "reconstruct": "ptychow.reconstruction",
    "refine_reconstruction": "ptychow.refinement",
    "evaluate": "ptychow.evaluation",
    "find_orientation": "ptychow.orientation_search",
    "Canvas": "ptychow.stitch",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ptychow' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
