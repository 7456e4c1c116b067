"""Does a patch explain its frame? Diffraction predicted from the patch through the probe, against what was measured.

A residual needs one frame and its own patch, nothing else: it does not depend on the order of frames, and it can be had
the moment a frame arrives.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ptychow.optics.propagation import expected_counts


def predicted_amplitudes(
    patches: NDArray[np.complexfloating], probe: NDArray[np.complexfloating]
) -> NDArray[np.float32]:
    """Root counts (b, n, n) expected of complex patches (b, n, n) lit by a probe (modes, n, n)."""
    return np.sqrt(expected_counts(probe[None], patches)).astype(np.float32, copy=False)


def frame_residuals(
    measured: NDArray[np.float32],
    patches: NDArray[np.complexfloating],
    probe: NDArray[np.complexfloating],
    good: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """How much of each frame its patch leaves unexplained, (b,) from 0 (nothing) to 1 (all).

    With m the measured root counts and p the predicted ones, over good pixels, the least of |m - s p| / |m| over all
    scales s: sqrt(1 - (m.p)^2 / (m.m p.p)). The scale is free because networks see scaled counts; the count rate is
    judged apart. What remains at best is shot noise, about sqrt(lit pixels / (4 counts)).

    measured: (b, n, n) root counts. good: (n, n) True where they can be believed, or None: everywhere. 1 where a frame
    holds nothing.
    """
    return unexplained(measured, predicted_amplitudes(patches, probe), good)


def flat_residuals(
    measured: NDArray[np.float32], probe: NDArray[np.complexfloating], good: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """`frame_residuals` of an object that is 1 everywhere: what knowing nothing but the probe leaves."""
    empty = predicted_amplitudes(np.ones((1, *probe.shape[1:]), np.complex64), probe)
    return unexplained(measured, np.broadcast_to(empty, measured.shape), good)


def unexplained(
    measured: NDArray[np.float32], predicted: NDArray[np.float32], good: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    """(b,) of measured and predicted root counts (b, n, n): see `frame_residuals`."""
    if good is not None:
        measured, predicted = measured * good, predicted * good
    both = np.einsum("bij,bij->b", measured, predicted, dtype=np.float64)
    power = np.einsum("bij,bij->b", measured, measured, dtype=np.float64)
    power *= np.einsum("bij,bij->b", predicted, predicted, dtype=np.float64)
    explained = np.divide(both**2, power, out=np.zeros_like(both), where=power > 0)
    return np.sqrt(np.clip(1 - explained, 0, 1)).astype(np.float32)


class Reference(BaseModel):
    """A value measured on frames that a Model knows: what its light is calibrated on.

    amber: the 95 % quantile of what was found, but at least 1.15 times its median; red lies as far above amber as amber
    lies above the median. flat: the median for an empty object on the same frames, None where it was not measured.
    frames: how many were used. data: which of the training scan's ("held-out", "validation",
    "training"; "unlabelled": any, as none of their labels was seen).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    median: float
    amber: float
    red: float
    frames: int
    data: str
    flat: float | None = None

    @property
    def is_learnt(self) -> bool:
        """Whether the Model does better than an empty object, as far as is known."""
        return self.flat is None or self.median < self.flat

    @classmethod
    def of(cls, values: NDArray[np.floating], frames: int, data: str, flat: float | None = None) -> Reference:
        """From the values (N,) found on known frames."""
        median, high = (float(value) for value in np.quantile(values, (0.5, 0.95)))
        amber = max(high, 1.15 * median)
        return cls(median=median, amber=amber, red=2 * amber - median, frames=frames, data=data, flat=flat)
