"""Does a scan look like what a Model was made for? Its counts and its mean pattern, by one rule.

`Model.check` asks of a scan's first frames, before the work; `trust` of all, or of the latest while a detector runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptychow.orientation import Orientation

if TYPE_CHECKING:
    from ptychow.model import ModelCard

Light = Literal["unknown", "green", "amber", "red"]
SEVERITY: tuple[Light, ...] = ("green", "unknown", "amber", "red")

# Counts per frame, as factors of the training's, beyond which the light turns where the Model's limits are unknown.
# Networks were seen to be right at x4 and wrong at x16 (Babu et al., Nat Commun 14:7059, 2023).
AMBER_COUNTS, RED_COUNTS = 4.0, 8.0
# Counts so far from the scan's median (as a factor, and its inverse) are another dose; in up to this part of the frames
# they may be an accident.
FAR_COUNTS, UNEVEN = 0.6, 0.02
# Cosine between mean patterns up to which a scan is doubtful, and up to which it is another instrument's.
SIMILAR_PATTERN, FOREIGN_PATTERN = 0.9, 0.6
# By so much must the mean pattern match better turned than as it is before orientation is blamed.
TURNED_BETTER = 0.02
# By so much better moved, and it lies elsewhere. One pixel on simulated and measured scans of 64 and 128 pixels: 0.0055
# to 0.01; any 64 frames of scans whose centre is right: up to 0.004.
MOVED_BETTER = 0.005


def judge_counts(card: ModelCard, ratio: float | None) -> tuple[Light, str]:
    """The light for the mean counts per frame over the training's (None: unknown), and what it says, in words."""
    if ratio is None:
        return "unknown", "count rate of the training frames unknown"
    said = f"count rate: {ratio:.3g} times the counts per frame of the training"
    if card.count_limits is not None:
        low, high = card.count_limits
        outside = f"{said}; the phase error is known to double outside {low:.3g} to {high:.3g}"
        return ("green", "") if low <= ratio <= high else ("red", outside)
    factor = max(ratio, 1 / max(ratio, 1e-12))
    if factor <= AMBER_COUNTS:
        return "green", ""
    return "red" if factor > RED_COUNTS else "amber", f"{said}; the Model's limits have not been measured"


def uneven_part(counts: NDArray[np.floating]) -> float:
    """Part of frames whose counts (n,) are far from the median; a frame or two are no part."""
    median = np.median(counts)
    far = (counts < FAR_COUNTS * median) | (counts * FAR_COUNTS > median)
    return float(far.mean()) if far.sum() > 2 else 0.0


def judge_evenness(part: float) -> tuple[Light, str]:
    """The light for the part of the frames whose counts are far from the median, and what it says, in words."""
    if part <= UNEVEN:
        return "green", ""
    return "amber", (
        f"beam: {part:.1%} of the frames hold less than {FAR_COUNTS:g} or more than {1 / FAR_COUNTS:.2g} times the "
        "median counts; all are given to the network by one scale, so that these are wrong (beam lost, or a strong "
        "absorber; ptychow prepare --monitor divides by I0, --drop leaves frames out)"
    )


class Moved(NamedTuple):
    """How far (pixels) a mean pattern lies from the training's, and its cosine with that, moved back.

    swapped: whether so far that its quarters must be swapped.
    """

    rows: int
    columns: int
    match: float
    swapped: bool = False

    @classmethod
    def of(cls, mean: NDArray[np.floating], reference: NDArray[np.floating]) -> Moved:
        """The cyclic shift between two square images (n, n) at which their cosine is largest."""
        products = np.fft.ifft2(np.fft.fft2(mean) * np.conj(np.fft.fft2(reference))).real
        size = len(mean)
        found = divmod(int(products.argmax()), size)
        rows, columns = ((place + size // 2) % size - size // 2 for place in found)
        norm = np.linalg.norm(mean) * np.linalg.norm(reference)
        match = float(products.max() / norm) if norm > 0 else 0.0
        return cls(rows, columns, match, rows == columns == -(size // 2))


def judge_pattern(match: Mapping[Orientation, float], moved: Moved | None = None) -> tuple[Light, str]:
    """The light for how well a mean pattern matches the training's, turned in each of the eight ways (`Model`) and
    moved back, and what it says, in words.
    """
    here, best = match[Orientation.IDENTITY], max(match, key=lambda turn: match[turn])
    if not any(match.values()):
        return "unknown", "mean pattern of the training frames unknown"
    if moved is not None and moved.match > max(here + MOVED_BETTER, match[best], SIMILAR_PATTERN):
        return "amber" if moved.match < here + TURNED_BETTER else "red", _moved_words(moved, here)
    if match[best] > here + TURNED_BETTER and match[best] > SIMILAR_PATTERN:
        return "red", f"orientation: turned by {best}, patterns match the Model's to {match[best]:.2f}, not {here:.2f}"
    if here > SIMILAR_PATTERN:
        return "green", ""
    said = f"probe or centre: the mean pattern matches the Model's only to {here:.2f} (1 is equal)"
    return "amber" if here > FOREIGN_PATTERN else "red", said


def _moved_words(moved: Moved, here: float) -> str:
    better = f"the mean pattern matches the Model's to {moved.match:.3f}, not {here:.3f}"
    if moved.swapped:
        return f"centre: zero frequency looks to be in the corners: swapped, {better} (ptychow prepare --fftshift)"
    away = f"{moved.rows:+d} rows, {moved.columns:+d} columns (pixels of the prepared frames)"
    return f"centre: the frames lie {away} from the Model's: moved back, {better} (ptychow prepare --centre)"
