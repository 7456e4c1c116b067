"""Distillation: a network learns from what a larger one predicts, not from labels (Hinton et al. 2015,
arXiv:1503.02531).

Where a pattern says nothing of its patch, outside of the beam, a label is noise to a network; what a trained network
predicts there is not. And a teacher can label any scan of its instrument.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptychow.devices import choose_device
from ptychow.engines.torch_engine import TorchEngine
from ptychow.model import Model
from ptychow.scan import Scan
from ptychow.training.data import LABEL_GAUGE

BATCH = 64


def taught_by(teacher: Model, scan: Scan, device: str = "auto") -> Scan:
    """`scan` with the teacher's prediction for every frame, (N, n, n) complex64, as its only labels.

    Raises InputError for a scan that `Model.check` refuses; what that warns of is not said again.
    """
    teacher.check(scan)
    preparation = teacher.prepare_for(scan)
    engine = TorchEngine(teacher, choose_device(device))
    patches = np.concatenate([engine.predict(preparation.apply(frames)) for _, frames in scan.batches(BATCH)])
    pixel, metadata = preparation.output_geometry(scan.geometry, scan.frame_shape).pixel_size, dict(scan.metadata)
    metadata[LABEL_GAUGE] = teacher.card.gauge
    metadata.pop("label_pixel_size", None)
    if pixel is not None:
        metadata["label_pixel_size"] = str(pixel)
    return replace(scan, object=None, label_patches=patches, metadata=metadata)
