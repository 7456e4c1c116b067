"""A small scan with its truth, made without a line of the package's own optics, and how far a label is from it."""

import numpy as np

from ptychow.metrics import align
from ptychow.scan import ObjectImage, Scan

SIZE, COUNTS = 32, 2e5


def smooth_object(shape, seed):
    """A random complex transmission without structure finer than the patches resolve, and without any symmetry."""
    rng = np.random.default_rng(seed)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1]), indexing="ij"))
    noise = [np.fft.ifft2(np.fft.fft2(rng.normal(size=shape)) * np.exp(-((radius / 0.07) ** 2))).real for _ in range(2)]
    phase, absorption = (part / part.std() for part in noise)
    return np.exp(0.4j * phase - 0.03 * np.abs(absorption))


def sample(image, origin, position, size):
    """Patch of `image` at a whole-pixel probe centre."""
    row, column = (np.asarray(position) - origin - size // 2).astype(int)
    return image[row : row + size, column : column + size]


def simulate(size=SIZE, step=4.0, points=11, offset=(137.0, -41.0), seed=0, detector=None):
    """A small scan with its truth; positions are whole pixels, so that patches need no interpolation.

    The far field is an explicit matrix transform with centred indices: an oracle independent of any FFT shift.
    """
    rng = np.random.default_rng(seed)
    grid = np.arange(points) * step
    positions = np.round(
        np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2) + rng.uniform(-1.5, 1.5, (points**2, 2))
    )
    positions += offset
    origin = positions.min(axis=0) - size // 2 - 3
    shape = (np.ptp(positions, axis=0) + size + 7).astype(int)
    truth = smooth_object(tuple(shape), seed)
    axis = np.arange(size) - size // 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    probe = np.exp(
        -((y - 1) ** 2 / 2 + (x + 2) ** 2 / 2.5) / (size / 7) ** 2 + 0.02j * (y**2 + 0.7 * x**2) + 0.01j * y * x
    )
    probe *= np.sqrt(COUNTS / (np.abs(probe) ** 2).sum())
    transform = np.exp(-2j * np.pi * np.outer(axis, axis) / size) / np.sqrt(size)
    patches = np.stack([sample(truth, origin, position, size) for position in positions])
    frames = rng.poisson(np.abs(transform @ (probe * patches) @ transform.T) ** 2).astype(np.uint16)
    found = ObjectImage(truth.astype(np.complex64), tuple(origin), "simulation")
    return Scan(frames, positions, object=found, probe=probe[None].astype(np.complex64), name="simulated")


def blurred(probe):
    """A first guess that is wrong by some defocus."""
    frequency = np.fft.fftfreq(probe.shape[-1])
    chirp = np.exp(8j * np.add.outer(frequency**2, frequency**2))
    return np.fft.ifft2(np.fft.fft2(probe) * chirp).astype(np.complex64)


def common_views(found: ObjectImage, truth: ObjectImage, margin):
    """Both objects on the truth's grid by their origins alone, without the rim that few patches cover."""
    shift = np.array(truth.origin) - found.origin
    assert np.array_equal(shift, np.round(shift))
    rows, columns = (slice(int(s) + margin, int(s) + n - margin) for s, n in zip(shift, truth.image.shape, strict=True))
    return found.image[rows, columns], truth.image[margin:-margin, margin:-margin]


def misfit(found, truth):
    """1 - complex correlation after what object and probe can exchange without a shift: constant, scale, ramp."""
    found = align(found, truth, remove=("constant", "scale", "ramp")).image
    return 1 - abs(np.vdot(found, truth)) / np.linalg.norm(found) / np.linalg.norm(truth)
