"""The probe an iterative reconstruction starts from: scaled to the counts, with as many modes as wanted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.scan import Scan

# Share of the power that each added mode gets; with this many modes the first still has most of it.
SECONDARY_POWER = 0.02
MOST_MODES = 20


def starting_probe(
    scan: Scan, count: int, mean_pattern: NDArray[Any], good: NDArray[np.bool_]
) -> tuple[NDArray[np.complex64], list[str]]:
    """Starting probe (count, H, W), scaled to the counts, and what was assumed."""
    notes = []
    if scan.probe is None:
        probe = np.fft.fftshift(np.fft.ifft2(np.sqrt(mean_pattern), norm="ortho"))[None].astype(np.complex64)
        notes.append("no probe in the scan: started from the inverse Fourier transform of the root mean pattern")
    else:
        probe = scan.probe.astype(np.complex64)
    if not (np.isfinite(probe).all() and np.abs(probe).any()):
        raise InputError("zero or not finite", file=scan.name, field="probe", remedy="Remove it, and one is estimated")
    if count < len(probe):
        strongest = np.argsort(-(np.abs(probe) ** 2).sum(axis=(1, 2)), kind="stable")[:count]
        notes.append(f"kept the {count} strongest of {len(probe)} probe modes")
        probe = probe[strongest]
    elif count > len(probe):
        notes.append(f"added {count - len(probe)} weak probe modes, orthogonal to the first {len(probe)}")
        probe = add_modes(probe, count)
    return (probe * power_factor(probe, mean_pattern, good)).astype(np.complex64), notes


def power_factor(probe: NDArray[Any], mean_pattern: NDArray[Any], good: NDArray[np.bool_]) -> float:
    """Factor on `probe` (modes, H, W) that gives its far field the counts of `mean_pattern` on the good pixels.

    `mean_pattern` and `good` (H, W) have zero frequency at [0, 0]. Without bad pixels |probe|^2 then sums to the
    counts.
    """
    predicted = (np.abs(np.fft.fft2(probe, norm="ortho")) ** 2).sum(axis=0)
    return float(np.sqrt(mean_pattern[good].sum() / predicted[good].sum()))


def add_modes(probe: NDArray[Any], count: int) -> NDArray[np.complex64]:
    """`probe` (modes, H, W) with weak modes added until there are `count`; the total power stays.

    The new ones are the first mode times x^m y^n under a Gaussian of its own width (as Pty-Chi and PtychoShelves
    start theirs), orthogonal to all others, each with `SECONDARY_POWER` of the total power.
    """
    missing = count - len(probe)
    intensity = np.abs(probe[0]) ** 2
    axes = []
    for axis, length in enumerate(intensity.shape):
        profile = intensity.sum(axis=1 - axis)
        centre = np.average(np.arange(length), weights=profile)
        width = np.sqrt(np.average((np.arange(length) - centre) ** 2, weights=profile)) or 1.0
        axes.append((np.arange(length) - centre) / width)
    y, x = np.meshgrid(*axes, indexing="ij")
    powers = [(order - n, n) for order in range(1, missing + 1) for n in range(order + 1)][:missing]
    envelope = probe[0] * np.exp(-(x**2 + y**2) / 2)
    basis = np.stack([*probe, *(x**m * y**n * envelope for m, n in powers)]).reshape(count, -1)
    new = np.linalg.qr(basis.T)[0].T[len(probe) :].reshape(missing, *intensity.shape)
    total = float((np.abs(probe) ** 2).sum())
    kept = probe * np.sqrt(1 - SECONDARY_POWER * missing)
    return np.concatenate([kept, new * np.sqrt(SECONDARY_POWER * total)]).astype(np.complex64)
