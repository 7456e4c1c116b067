import json
from dataclasses import replace

import numpy as np
import pytest

import paper
from common import Contender
from paper_claims import claims, reasons, tried
from paper_data import Source, open_source, preparation_for, shuffled
from paper_networks import LEARNERS
from paper_page import write_page
from paper_plan import SCALES, Scale, Training, plan
from paper_results import HEADLINE, Results, number
from paper_run import OutOfTimeError, points, run
from ptychow.errors import InputError
from ptychow.optics.beam import gaussian_beam
from ptychow.optics.detection import Detector
from ptychow.optics.samples import labyrinth
from ptychow.optics.simulate import canvas, simulate
from ptychow.optics.trajectories import raster
from ptychow.patches import PatchExtractor

TINY = {"depths": [1, 1, 1, 1], "dims": [16, 16, 16, 16], "decoder_dims": [16, 16, 16]}
LINES, COLUMNS, SIZE = 24, 14, 32
SCALE = Scale(
    "tiny", (0, 4), 4, (2, 4), columns=(0, 14), test_lines=(4, 24), test_columns=(2, 14), leak_free=14, batch_size=16
)


def small_scan(size):
    positions = raster(LINES, COLUMNS, 3)
    shape, origin = canvas(positions, size)
    sample = labyrinth(shape, np.random.default_rng(0), feature=12.0)
    beam = gaussian_beam(size, fwhm=7, curvature=0.02)
    noise = {"counts": 1e4, "detector": Detector(), "seed": 0, "workers": 1}
    return simulate(beam, sample, positions, origin=origin, raster=(LINES, COLUMNS), **noise)


@pytest.fixture(scope="module")
def scan():
    return small_scan(SIZE)


@pytest.fixture
def source(scan):
    numbers = np.arange(len(scan)).reshape(LINES, COLUMNS)

    def part(seed, lines, columns):
        chosen = numbers[slice(*lines), slice(*columns)]
        return replace(scan.select(chosen.ravel()), raster=chosen.shape, name=f"seed-{seed}")

    return Source("tiny", "a tiny scan", True, part)


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    for name in ("ptychonn", "w1", "w3"):
        settings = {"nconv": 2} if name == "ptychonn" else TINY
        network = "ptychonn" if name == "ptychonn" else "w3"
        monkeypatch.setitem(LEARNERS, name, Contender(name, network, settings, name.upper()))


def test_from_data_to_page_and_nothing_is_trained_twice(source, tmp_path, monkeypatch):
    folder, cache = tmp_path / "paper" / "tiny", tmp_path / "cache"
    wanted = plan(SCALE, networks=["ptychonn", "w1", "w3"], seeds=2)
    trained = [t for t in wanted if t.name in {"paper_ptychonn_0", "paper_w1_0", "ptychow_w3_0"}]
    trained += [Training("ptychonn", seed=1), Training("w1", seed=1)]
    for training in trained:
        run(training, SCALE, source, folder / f"{training.name}.json", cache)
    page = write_page(tmp_path, "tiny", source, SCALE, wanted, folder, cache).read_text()
    found = json.loads((folder / "paper_w1_0.json").read_text())
    assert "not trained yet" in page and "![" in page
    results = Results.read(folder)
    ratio = results.ratio("w1", "paper", "leak-free")
    seeds = [
        number(results.of(Training("w1", seed=s))) / number(results.of(Training("ptychonn", seed=s))) for s in (0, 1)
    ]
    assert ratio.values == pytest.approx(seeds)
    # The bootstrap's blocks are those of the headline itself.
    for run_ in results.runs.values():
        for block, frames in (("paper", 240), ("leak-free", 120)):
            facts = run_["blocks"][block]
            assert facts["frames"] == frames
            assert sum(facts["error_blocks"]) / frames == pytest.approx(facts["notebook"]["grid_phase_mse"], rel=1e-4)
    assert [point["steps"] for point in found["milestones"]] == [3, 6, 9]  # of 12
    assert all(point[HEADLINE] > 0 for point in found["milestones"])
    assert not list(cache.glob("*.checkpoint"))
    assert "ratio to PtychoNN" in claims(results)
    assert reasons(results, SCALE) == ""
    longer = {f"{name}_x3": run_ for name, run_ in results.runs.items() if name.startswith("paper_")}
    assert f"(ratio {seeds[0]:.2f})" in reasons(Results(longer), SCALE)
    anew = [run_["statistics_anew"] for name, run_ in results.runs.items() if "ptychonn" not in name]
    assert len(anew) == 3 and all(value > 0 for value in anew)
    assert results.runs["paper_ptychonn_0"]["statistics_anew"] is None
    assert "the ratio is" not in " ".join(tried(results))
    changed = {"paper_w1_0_one-cycle": results.runs["paper_w1_1"]}
    said = " ".join(tried(Results(results.runs | changed)))
    assert f"W1 leaves {number(results.of(Training('w1', seed=1))):.3f} instead of" in said
    for word in ("/tmp", str(tmp_path)):
        assert word not in page and word not in json.dumps(found["blocks"])


def test_a_training_that_runs_out_of_time_goes_on_where_it_stopped(source, tmp_path):
    training = Training("w3")
    result = tmp_path / "a" / "w3.json"
    for _ in range(3):
        with pytest.raises(OutOfTimeError):
            run(training, SCALE, source, result, tmp_path / "a", deadline=0)
        assert not result.exists()
    run(training, SCALE, source, result, tmp_path / "a")
    run(training, SCALE, source, tmp_path / "b" / "w3.json", tmp_path / "b")
    once, again = (json.loads((tmp_path / name / "w3.json").read_text()) for name in "ba")
    assert len(once["history"]["train_loss"]) == 4
    assert once["history"]["train_loss"] == again["history"]["train_loss"]
    assert once["blocks"] == again["blocks"]


@pytest.fixture
def published(tmp_path):
    """Files of the published names and layout, fewer lines; the folder and the frames (N, 64, 64)."""
    made = small_scan(64)
    labels = PatchExtractor(made.object, 64)(made.positions_px).reshape(LINES, COLUMNS, 64, 64)
    np.save(tmp_path / "20191008_39_amp_pha_10nm_full.npy", labels.astype(np.complex128))
    return tmp_path, made.frames


def test_the_command_runs_on_the_published_files(published, monkeypatch):
    folder, frames = published
    np.savez(folder / "20191008_39_diff_reduced.npz", frames.reshape(LINES, COLUMNS, 64, 64).astype(np.float64))
    monkeypatch.setitem(SCALES, "small", SCALE)
    monkeypatch.setenv("PTYCHOW_CACHE", str(folder / "cache"))
    command = ["paper.py", "--data", str(folder), "--only", "*_0", "--networks", "w3", "--output", str(folder / "out")]
    monkeypatch.setattr("sys.argv", command)
    monkeypatch.setattr("paper.plan", lambda *_, **options: [Training("w3", recipe) for recipe in options["recipes"]])
    paper.main()
    (result,) = folder.glob("out/paper/*/*.json")  # the paper's recipe alone: the files hold no probe
    found = json.loads(result.read_text())
    assert result.stem == "paper_w3_0" and found["data"] == "20191008_39_diff_reduced.npz"
    assert found["blocks"]["leak-free"]["reference"] == "label"
    before = result.stat().st_mtime_ns
    paper.main()
    assert result.stat().st_mtime_ns == before


def test_the_large_published_frames_are_reduced_as_the_notebooks_do(published):
    folder, frames = published
    large = np.pad(np.kron(np.asarray(frames[:]), np.ones((3, 3), np.uint16)), ((0, 0), (32, 32), (32, 32)))
    np.savez(folder / "20191008_39_diff.npz", large.reshape(LINES, COLUMNS, 256, 256))
    part = open_source(str(folder)).part(0, (0, 2), (0, COLUMNS))
    prepared = preparation_for(part, Training("w3").settings(SCALE, 20)).apply(part.frames[:5])
    sums = 9.0 * np.asarray(frames[:5])
    assert np.array_equal(prepared[:, 0], np.where(sums < 3, 0, sums))


def test_a_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(InputError, match="no PtychoNN data"):
        open_source(str(tmp_path))


def test_shuffled_frames_are_the_same_frames_at_other_places(scan):
    mixed = shuffled(scan, 0)
    order = [
        int(np.flatnonzero((np.asarray(scan.frames[:]) == frame).all(axis=(1, 2)))[0]) for frame in mixed.frames[:40]
    ]
    assert len(set(order)) == 40 and order != list(range(40))
    assert (mixed.positions == scan.positions).all() and mixed.object is scan.object


def test_the_four_points_are_the_middles_of_the_quarters():
    assert points((40, 60)) == [10 * 60 + 15, 10 * 60 + 45, 30 * 60 + 15, 30 * 60 + 45]
