import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from ptychow import orientation_search
from ptychow.errors import InputError
from ptychow.formats import read_scan, write_scan
from ptychow.optics.beam import gaussian_beam
from ptychow.optics.detection import Detector
from ptychow.optics.propagation import far_field, radius_map
from ptychow.optics.samples import SAMPLES
from ptychow.optics.simulate import canvas, simulate
from ptychow.optics.trajectories import raster
from ptychow.orientation import Orientation
from ptychow.orientation_search import (
    CLASSES,
    Hypothesis,
    Oriented,
    central,
    class_of,
    find_orientation,
    number_of_trials,
    upright,
)

pytest.importorskip("ptychi")

SIZE = 32
UPRIGHT = (Orientation.IDENTITY,)
PAIRS = list(itertools.product(Orientation, repeat=2))


def lopsided_beam():
    """A beam without any symmetry."""
    y, x = (np.indices((SIZE, SIZE)) - SIZE // 2) / SIZE
    beam = gaussian_beam(SIZE, fwhm=9, curvature=0.02)
    return (beam * (1 + 3 * x - 2 * y) * np.exp(1j * (60 * x**3 + 25 * x * y - 30 * y**2))).astype(np.complex64)


def measured(beam=None, positions=None, flat=False):
    """A scan of a labyrinth through the beam, in pixels and without its truth."""
    positions = raster(9, 9, 1.0) * (5.0, 4.0) if positions is None else positions
    shape, origin = canvas(positions, SIZE)
    sample = SAMPLES["labyrinth"](shape, np.random.default_rng(0), feature=12.0, phase_step=-0.8)
    scan = simulate(
        lopsided_beam() if beam is None else beam,
        np.ones_like(sample) if flat else sample,
        positions,
        origin=origin,
        counts=2e4,
        detector=Detector(),
        workers=1,
    )
    return replace(scan, object=None)


def stored(scan, frames, positions=Orientation.IDENTITY):
    """The scan as an instrument would store it that needs this done to its frames and positions."""
    turned = frames.inverse.apply_about_zero_frequency(scan.frames[:])
    return replace(scan, frames=turned, positions=positions.inverse.apply_to_positions(scan.positions))


# What the module says of the 64 pairs, on arrays of odd size, whose turns are exact.


def frames_of(probe, image, positions):
    """Expected frames of patches at whole-pixel positions about the middle of an object."""
    half, middle = probe.shape[0] // 2, image.shape[0] // 2
    patches = [
        image[middle + y - half : middle + y + half + 1, middle + x - half : middle + x + half + 1]
        for y, x in positions.astype(int)
    ]
    return np.abs(far_field(probe * np.stack(patches))) ** 2


@pytest.mark.parametrize("turn", list(Orientation))
def test_common_turns_and_conjugates_explain_the_same_frames(turn):
    rng = np.random.default_rng(0)
    probe, image = (rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n)) for n in (9, 41))
    positions = rng.integers(-12, 13, (7, 2))
    frames = frames_of(probe, image, positions)
    moved = turn.apply_to_positions(positions)
    common = frames_of(turn.apply(probe), turn.apply(image), moved)
    np.testing.assert_allclose(turn.apply_about_zero_frequency(frames), common)
    conjugate = frames_of(turn.apply(probe).conj(), turn.apply(image).conj(), moved)
    np.testing.assert_allclose(turn.then(Orientation.ROTATE_180).apply_about_zero_frequency(frames), conjugate)


def test_positions_turn_as_the_images_they_lie_on():
    image = np.zeros((9, 9))
    image[4 + 1, 4 - 3] = 1
    for orientation in Orientation:
        y, x = orientation.apply_to_positions(np.array([[1, -3]]))[0]
        assert orientation.apply(image)[4 + y, 4 + x] == 1


def test_the_64_pairs_are_four_classes_of_16():
    counted = Counter(class_of(frames, positions) for frames, positions in PAIRS)
    assert counted == dict.fromkeys(CLASSES, 16)
    assert sorted(itertools.chain(*CLASSES)) == sorted(Orientation)
    for frames, positions in PAIRS:
        explained = positions in (frames, frames.then(Orientation.ROTATE_180))
        assert (class_of(frames, positions) == CLASSES[0]) == explained


def test_turning_a_scan_further_keeps_its_class():
    for frames, positions in PAIRS:
        for turn in Orientation:
            assert class_of(frames.then(turn), positions.then(turn)) == class_of(frames, positions)
        for members in CLASSES:
            assert class_of(frames.then(members[0]), positions) == class_of(frames.then(members[1]), positions)


# The search.


@pytest.mark.parametrize("frames", [Orientation.ROTATE_90, Orientation.FLIP_COLUMNS])
def test_a_known_probe_finds_the_member(frames):
    found = find_orientation(stored(measured(), frames), positions=UPRIGHT)
    assert found.knows_member
    assert (found.best.frames, found.best.positions) == (frames, Orientation.IDENTITY)
    assert found.confidence == 1
    assert found.margin > 0.1
    assert str(frames) in found.words()[0]


def test_axes_of_the_positions_are_found_with_a_known_probe(monkeypatch):
    monkeypatch.setattr(orientation_search, "TRUSTED_ROUNDS", ((64, 4),))
    some = (Orientation.IDENTITY, Orientation.TRANSPOSE, Orientation.ROTATE_180)
    found = find_orientation(stored(measured(), Orientation.FLIP_ROWS, Orientation.TRANSPOSE), positions=some)
    assert found.knows_member
    assert (found.best.frames, found.best.positions) == (Orientation.FLIP_ROWS, Orientation.TRANSPOSE)


def test_a_round_probe_leaves_common_turns_open():
    scan = measured(gaussian_beam(SIZE, fwhm=9, curvature=0.02))
    both = (Orientation.IDENTITY, Orientation.FLIP_ROWS)
    found = find_orientation(stored(scan, Orientation.ROTATE_90), positions=both)
    assert found.knows_class
    assert not found.knows_member
    fitting = {(h.frames, h.positions) for h in found.alike}
    assert fitting == {(Orientation.ROTATE_90, both[0]), (Orientation.ROTATE_90.then(both[1]), both[1])}
    assert found.best.frames is Orientation.ROTATE_90
    assert "several sides" in found.words()[1]


def test_without_a_probe_the_class_is_found(monkeypatch):
    monkeypatch.setattr(orientation_search, "SPREADS", (0.07,))
    scan = replace(stored(measured(gaussian_beam(SIZE, fwhm=9, curvature=0.02)), Orientation.ROTATE_270), probe=None)
    found = find_orientation(scan)
    assert found.knows_class
    assert not found.knows_member
    assert found.best.members == (Orientation.ROTATE_90, Orientation.ROTATE_270)
    assert found.summary()["decided"] == "class"
    assert "cannot be told apart" in found.words()[1]


def test_refuses_where_points_do_not_overlap():
    far_apart = find_orientation(measured(positions=raster(4, 4, 40.0)), positions=UPRIGHT)
    assert not far_apart.knows_class
    assert far_apart.summary()["decided"] is None


def test_refuses_an_empty_object():
    found = find_orientation(measured(flat=True), positions=UPRIGHT)
    assert not found.sees_object
    assert not found.knows_class
    assert "empty object" in found.words()[0]


def test_a_single_line_of_points_leaves_classes_open():
    # Mirrored across their line the points are the same; mirrored frames then fit with a mirrored object.
    line = np.stack([np.zeros(48), 2.0 * np.arange(48)], axis=-1)
    mirrored = (Orientation.IDENTITY, Orientation.FLIP_ROWS)
    found = find_orientation(measured(gaussian_beam(SIZE, fwhm=9, curvature=0.02), line), positions=mirrored)
    assert {h.members for h in found.alike} >= {CLASSES[0], CLASSES[2]}
    assert not found.knows_class
    assert "alike" in found.words()[0]


def test_needs_frames_and_the_probe_it_shall_trust():
    scan = measured()
    with pytest.raises(InputError, match="too few"):
        find_orientation(scan.select(np.arange(5)))
    with pytest.raises(InputError, match="too few"):
        find_orientation(replace(scan, frames=np.where(np.arange(len(scan))[:, None, None] < 5, scan.frames[:], 0)))
    with pytest.raises(InputError, match="nothing to trust"):
        find_orientation(replace(scan, probe=None), trust_probe=True)


def test_trials_are_counted():
    seen = []
    scan = measured().select(np.arange(12))
    find_orientation(scan, positions=UPRIGHT, on_trial=lambda: seen.append(1))
    assert len(seen) == number_of_trials(scan, trusted=True, positions=1) == 16


def test_the_margin_is_to_the_next_class():
    best, same, other = (
        Hypothesis(frames, Orientation.IDENTITY, residual, 0.5, worse)
        for frames, residual, worse in (
            (Orientation.IDENTITY, 0.1, 0.0),
            (Orientation.ROTATE_180, 0.11, 0.6),
            (Orientation.TRANSPOSE, 0.2, 0.9),
        )
    )
    found = Oriented((best, same, other), (best, same), True, 12)
    assert found.margin == pytest.approx(1)
    assert found.confidence == 0.9
    assert found.knows_class
    assert not found.knows_member


def test_central_points_come_nearest_first():
    positions = raster(5, 5, 2.0)
    chosen = central(positions, 5)
    assert np.array_equal(positions[chosen[0]], (4, 4))
    assert set(chosen[1:]) == {7, 11, 13, 17}


def test_upright_undoes_what_was_done():
    scan = measured()
    for frames, positions in ((Orientation.ROTATE_90, Orientation.TRANSPOSE), (Orientation.FLIP_ROWS, UPRIGHT[0])):
        again = upright(stored(scan, frames, positions), frames, positions)
        assert np.array_equal(again.frames[:], scan.frames[:])
        assert np.array_equal(again.positions, scan.positions)
        assert np.allclose(again.probe, scan.probe)


def test_upright_frames_may_have_a_size_no_network_takes():
    scan = measured()
    odd = replace(scan, frames=scan.frames[:][:, :30, :30], probe=None, mask=None)
    assert upright(odd, Orientation.ROTATE_90, Orientation.IDENTITY).frame_shape == (30, 30)


def test_spread_of_a_defocused_start_is_as_asked():
    from ptychow.solver.measurement import measure

    scan = measured(gaussian_beam(64, fwhm=3)[16:48, 16:48])
    for spread in (0.1, 0.15):
        intensity = np.abs(orientation_search.defocused(measure(scan)[1], spread)[0]) ** 2
        found = np.sqrt((intensity * radius_map((SIZE, SIZE)) ** 2).sum() / intensity.sum())
        assert found == pytest.approx(spread * SIZE, rel=0.3)


# The command.


@pytest.fixture
def turned_file(tmp_path):
    path = tmp_path / "turned.cxi"
    write_scan(path, stored(measured(), Orientation.ROTATE_90))
    return path


def test_the_command_writes_the_scan_upright(ptychow, turned_file, tmp_path):
    target = tmp_path / "upright.cxi"
    code, said, _ = ptychow("orient", turned_file, "--positions-known", "--output", target)
    assert code == 0
    assert "frames: rotate-90, positions: identity" in said
    assert np.array_equal(read_scan(target).frames[:], measured().frames[:])


def test_a_first_guess_of_a_probe_is_not_trusted_to_the_end(ptychow, tmp_path):
    """A file does not say how good its probe is: where none of the orientations fits it, the class is still found."""
    scan = stored(measured(), Orientation.ROTATE_90)
    table = tmp_path / "positions.csv"
    np.savetxt(table, scan.positions, delimiter=",", header="y_px,x_px")
    guess = np.abs(lopsided_beam())[None].astype(np.complex64)
    write_scan(tmp_path / "guess.cxi", replace(scan, probe=guess))
    code, said, complained = ptychow("orient", tmp_path / "guess.cxi", "--positions-known", "--positions", table)
    assert (code, complained.count("warning")) == (0, 0)
    assert "looking again, as with --rough-probe" in said and "frames: rotate-90 or rotate-270" in said


def test_the_command_refuses_to_guess(ptychow, tmp_path):
    path, target = tmp_path / "flat.cxi", tmp_path / "upright.cxi"
    write_scan(path, measured(flat=True))
    code, said, complained = ptychow("orient", path, "--positions-known", "--json", "--output", target)
    assert code == 1
    assert '"decided": null' in said
    assert "flat.cxi: the orientation cannot be told" in complained
    assert len(complained.strip().splitlines()) == 1
    assert not target.exists()
