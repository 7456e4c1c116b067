"""How tests look at beams: over rings about the middle, and where the detector is."""

import numpy as np

from ptychow.optics.beam import intensity
from ptychow.optics.propagation import far_field, radius_map


def radial_profile(image):
    """Mean of an image over rings about [H//2, W//2]; entry r covers the radii r - 0.5 to r + 0.5 pixels."""
    rings = np.rint(radius_map(image.shape)).astype(int).ravel()
    return np.bincount(rings, image.ravel()) / np.bincount(rings)


def far_field_intensity(probe):
    """What the detector would see without a sample, (N, N)."""
    return intensity(far_field(probe))
