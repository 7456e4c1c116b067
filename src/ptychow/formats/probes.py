"""Probes as programs store them, to PtychoW's: (modes, H, W), in root counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.frame_statistics import measure_frames
from ptychow.scan import Scan


def probe_modes(probe: NDArray[Any]) -> NDArray[np.complex64]:
    """(modes, H, W) complex64 of (H, W), (modes, H, W) or (variations, modes, H, W), of which the first is taken.

    Raises InputError for any other rank and for real values.
    """
    if probe.ndim not in (2, 3, 4) or not np.iscomplexobj(probe) or probe.size == 0:
        found = f"{probe.dtype} {probe.shape}"
        raise InputError("not a probe", field="probe", found=found, expected="complex (modes, H, W)")
    modes = {2: probe[None], 3: probe, 4: probe[0]}[probe.ndim]
    return modes.astype(np.complex64, copy=False)


def with_scaled_probe(scan: Scan, probe: NDArray[Any]) -> Scan:
    """The scan with `probe` (modes, H, W) scaled so that |probe|^2 sums to the mean counts of a frame.

    By Parseval's theorem for the orthonormal transform, where |object| is about 1. One pass over the frames, in which
    masked pixels and values that are no counts (NaN, markers of invalid pixels) are left out; the metadata record the
    factor.
    """
    means = measure_frames(scan).mean
    counts = float(means.sum() if scan.mask is None else means[scan.mask].sum())
    power = float(np.sum(np.abs(probe.astype(np.complex128)) ** 2))
    if not (counts > 0 and power > 0):
        return scan
    factor = np.sqrt(counts / power)
    record = f"multiplied by {factor:.6g} so that |probe|^2 sums to the mean counts of a frame"
    return replace(scan, probe=(probe * factor).astype(np.complex64), metadata={**scan.metadata, "probe_scale": record})
