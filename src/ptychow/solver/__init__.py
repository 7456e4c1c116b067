"""Iterative reconstruction through Pty-Chi: `label` a scan, `refine` an object, or `iterate` from where one is."""

from ptychow.solver.engine import Estimate, Progress, iterate
from ptychow.solver.labelling import Labelled, choose_modes, label, require_memory
from ptychow.solver.measurement import MARGIN, Measurement, flat_object, illumination, measure, object_frame
from ptychow.solver.methods import METHODS, Method, method_named
from ptychow.solver.warm_start import Start, best_start, place, refine

__all__ = [
    "MARGIN",
    "METHODS",
    "Estimate",
    "Labelled",
    "Measurement",
    "Method",
    "Progress",
    "Start",
    "best_start",
    "choose_modes",
    "flat_object",
    "illumination",
    "iterate",
    "label",
    "measure",
    "method_named",
    "object_frame",
    "place",
    "refine",
    "require_memory",
]
