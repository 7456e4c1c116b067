"""What many tests need: a small labelled scan, a network that trains in a second, and the command line in-process."""

from __future__ import annotations

import os

# Before torch comes: tensors this small are slower on two threads, and very slow on two threads of a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from ptychow.cli import main
from ptychow.formats import write_scan
from ptychow.optics.beam import gaussian_beam
from ptychow.optics.detection import Detector
from ptychow.optics.samples import SAMPLES
from ptychow.optics.simulate import canvas, simulate
from ptychow.optics.trajectories import raster
from ptychow.scan import Geometry, ObjectImage, Scan

LINES, POINTS, SIZE = 20, 4, 32
# The smallest W3: what is tested here does not depend on how well it learns.
TINY = {"depths": [1, 1, 1, 1], "dims": [16, 16, 16, 16], "decoder_dims": [16, 16, 16]}


def small_scan(seed: int = 0, lines: int = LINES, points: int = POINTS, counts: float = 2e4) -> Scan:
    """A labelled raster of 32 x 32 frames, 4 pixels apart along a line, lines 6 apart; 10 nm pixels."""
    positions = raster(lines, points, 1.0) * (6.0, 4.0)
    shape, origin = canvas(positions, SIZE)
    return simulate(
        gaussian_beam(SIZE, fwhm=9, curvature=0.02),
        SAMPLES["labyrinth"](shape, np.random.default_rng(seed), feature=12.0, phase_step=-0.8),
        positions,
        origin=origin,
        counts=counts,
        geometry=Geometry(pixel_size=10e-9),
        detector=Detector(),
        seed=seed,
        raster=(lines, points),
        name=f"small-{seed}.cxi",
    )


def smooth_object(shape=(90, 100), seed=0, sigma=3.0) -> ObjectImage:
    """A random complex object without detail finer than `sigma` pixels."""
    rng = np.random.default_rng(seed)
    phase = ndimage.gaussian_filter(rng.normal(size=shape), sigma, mode="wrap")
    amplitude = ndimage.gaussian_filter(rng.normal(size=shape), sigma, mode="wrap")
    image = (1 + 0.2 * amplitude / amplitude.std()) * np.exp(0.8j * phase / phase.std())
    return ObjectImage(image.astype(np.complex64), (-7.0, 4.0), "test")


def positions_inside(truth, size, count, rng):
    """Positions (count, 2) whose size x size patches lie in the object."""
    low = np.asarray(truth.origin) + size // 2
    high = np.asarray(truth.origin) + np.asarray(truth.image.shape) - size + size // 2
    return rng.uniform(low, high, (count, 2))


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Within it, files cannot grow beyond `size` bytes, whichever library writes: as on a disk that fills up."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def scan() -> Scan:
    """Do not change it."""
    return small_scan()


@pytest.fixture(scope="session")
def trained(scan):
    """Two epochs of the default recipe, with held-out lines."""
    from ptychow.training import recipe_named, train

    recipe = recipe_named("ptychow", epochs=2, batch_size=8)
    return excused(train(scan, "w3", recipe, settings=TINY, holdout=0.1, device="cpu"))


@pytest.fixture(scope="session")
def paper_trained(scan):
    """Two epochs of the paper's recipe: raw counts, absolute phases, random split."""
    from ptychow.training import recipe_named, train

    recipe = recipe_named("paper", epochs=2, batch_size=16)
    return excused(train(scan, "w3", recipe, settings=TINY, split="random", device="cpu"))


def excused(trained):
    """Without what an empty object leaves unexplained: that two epochs teach next to nothing is not held against it."""
    from ptychow.model import Model

    model = trained.model
    residual = model.card.residual.model_copy(update={"flat": None})
    card = model.card.model_copy(update={"residual": residual})
    return replace(trained, model=Model(card, model.network, model.probe, model.mean_pattern))


@pytest.fixture
def scan_file(scan, tmp_path):
    """The small scan as CXI."""
    path = tmp_path / "scan.cxi"
    write_scan(path, scan)
    return path


@pytest.fixture
def model_file(trained, tmp_path):
    """The trained Model's file."""
    path = tmp_path / "model.safetensors"
    trained.model.save(path)
    return path


@pytest.fixture
def ptychow(capsys):
    """Call `ptychow ARGUMENTS` in this process: (exit code, what it printed, what it complained)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return int(left.value.code or 0), shown.out, shown.err

    return call


def briefly(result):
    """What a command gave, without the rightful complaint that so short a training teaches nothing."""
    code, shown, complaint = result
    lines = [line for line in complaint.splitlines(True) if "no better than an empty object" not in line]
    return code, shown, "".join(lines)


@pytest.fixture
def unlabelled(scan):
    """The small scan as it would come from an instrument."""
    return replace(scan, object=None, probe=None)
