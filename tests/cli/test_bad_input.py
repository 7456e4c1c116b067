"""Everything that can be wrong with what a user gives, tried on every command.

Always: exit code 2 (input) or 1 (failure), one line on standard error that says what is wrong, nothing on standard
output (with --quiet), no traceback, and every file as it was before.
"""

import ctypes
import os
import re
import subprocess
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import h5py
import numpy as np
import pytest

from conftest import no_file_beyond
from ptychow.formats import write_scan

FRAMES = "entry_1/instrument_1/detector_1/data"
POSITIONS = "entry_1/sample_1/geometry_1/translation"

COMMANDS = {
    "inspect": ["inspect", "SCAN"],
    "label": ["label", "SCAN", "--epochs", "1", "--device", "cpu"],
    "train": ["train", "SCAN", "--network", "w3", "--epochs", "1", "--batch-size", "8", "--device", "cpu"],
    "reconstruct": ["reconstruct", "SCAN", "--model", "MODEL", "--device", "cpu"],
    "evaluate": ["evaluate", "MODEL", "SCAN", "--region", "all", "--device", "cpu"],
    "simulate": ["simulate", "--beam", "SCAN", "--points", "4"],
    "prepare": ["prepare", "SCAN"],
}
USE_FRAMES = ["label", "train", "reconstruct", "evaluate"]


def snapshot(folder):
    """Every file and folder below, with the files' content."""
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(Path(folder).rglob("*"))}


@pytest.fixture
def attempt(ptychow, tmp_path, scan_file, model_file, monkeypatch):
    """Run a command of `COMMANDS` that must fail as the module says; gives its complaint."""
    pytest.importorskip("ptychi")
    monkeypatch.chdir(tmp_path)

    def run(command, *more, code=2, file=scan_file, model=model_file):
        before = snapshot(tmp_path)
        places = {"SCAN": file, "MODEL": model}
        found, shown, complaint = ptychow(*(places.get(part, part) for part in COMMANDS[command]), "--quiet", *more)
        assert found == code, complaint
        assert shown == "" and "Traceback" not in complaint
        assert complaint.startswith("error: ") and complaint.count("\n") == 1 and len(complaint) < 800
        assert snapshot(tmp_path) == before
        return complaint

    return run


def change(path, name, values):
    """Replace a dataset of an HDF5 file; None removes it."""
    with h5py.File(path, "a") as file:
        attributes = dict(file[name].attrs)
        del file[name]
        if values is not None:
            file[name] = values
            file[name].attrs.update(attributes)


def truncate(path, scan):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_frames(make):
    return lambda path, scan: change(path, FRAMES, make(scan.frames))


def with_positions(make):
    def damage(path, scan):
        with h5py.File(path) as file:
            values = file[POSITIONS][:]
        change(path, POSITIONS, make(values))

    return damage


def not_a_number(positions):
    positions[3, 1] = np.nan
    return positions


# What is wrong with the file, for whichever command reads it, and words that must be said.
DAMAGES = {
    "truncated": (truncate, "complete HDF5 file"),
    "empty": (lambda path, scan: path.write_bytes(b""), "empty"),
    "text": (lambda path, scan: path.write_text("frames"), "not a scan file"),
    "missing": (lambda path, scan: path.unlink(), "no such file"),
    "no frames": (with_frames(lambda frames: None), "data"),
    "no positions": (with_positions(lambda positions: None), "translation"),
    "a frame instead of frames": (with_frames(lambda frames: frames[0]), "(frames, rows, columns)"),
    "five dimensions": (with_frames(lambda frames: frames.reshape(2, 2, 20, 32, 32)), "(frames, rows, columns)"),
    "complex frames": (with_frames(lambda frames: frames[:4] * 1j), "complex"),
    "fewer positions": (with_positions(lambda positions: positions[:-5]), "75 positions for 80 frames"),
    "positions of one axis": (with_positions(lambda positions: positions[:, :1]), "translation"),
    "NaN positions": (with_positions(not_a_number), "1 not finite (first at index 3)"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_scan(damage, command, attempt, scan_file, scan):
    make, words = DAMAGES[damage]
    make(scan_file, scan)
    complaint = attempt(command)
    assert words in complaint and "scan.cxi" in complaint


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("content", [[], ["a.tif", "b.tif"]])
def test_a_folder_instead_of_a_file(content, command, attempt, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in content:
        (folder / name).write_text("")
    complaint = attempt(command, file=folder)
    assert ("a folder with a.tif, b.tif" if content else "an empty folder") in complaint


@pytest.mark.parametrize("command", USE_FRAMES)
def test_frames_of_zeros(command, attempt, scan_file, scan):
    change(scan_file, FRAMES, 0 * scan.frames)
    assert "scan.cxi: frames: " in attempt(command)


@pytest.mark.parametrize("command", ["label", "train", "reconstruct", "evaluate"])
def test_frames_that_are_not_finite(command, attempt, scan_file, scan):
    frames = scan.frames.astype(np.float32)
    frames[5, 16, 16] = np.nan
    change(scan_file, FRAMES, frames)
    assert "scan.cxi: frames: " in attempt(command)


def test_wrapped_counts_are_unwrapped_for_a_model_of_proper_ones(scan_file, scan, model_file, ptychow):
    frames = scan.frames.astype(np.int16)
    frames[5, 16, 16] = -300
    change(scan_file, FRAMES, frames)
    assert ptychow("reconstruct", scan_file, "--model", model_file, "--device", "cpu")[0] == 0


def test_counts_that_wrapped_around_are_said_by_inspect_and_unwrapped_in_training(scan_file, scan, ptychow):
    frames = scan.frames.astype(np.int16)
    frames[5, 16, 16] = -300
    change(scan_file, FRAMES, frames)
    assert "read as value + 65536" in ptychow("inspect", scan_file)[1]
    assert ptychow(*("train", scan_file, "--network", "w3", "--epochs", 1, "--device", "cpu", "--quiet"))[0] == 0


@pytest.mark.parametrize("command", ["train", "reconstruct", "evaluate"])
def test_a_frame_size_no_network_takes(command, attempt, scan, tmp_path, scan_file):
    """The sizes that work, and the crop or bin that gets there, are said."""
    if command == "train":
        frames, words = scan.frames[:, :30, :30], "sizes that work: 16 (crop to 16)"
    else:
        frames = np.repeat(np.repeat(scan.frames, 3, axis=1), 3, axis=2)[:, :70, :70]
        words = "made for 32 x 32. Bring them there (ptychow prepare FILE --crop 32, or --crop 64 --bin 2; with"
    path = tmp_path / "odd.cxi"
    probe = np.pad(scan.probe, ((0, 0), (19, 19), (19, 19))) if command != "train" else scan.probe[:, 1:31, 1:31]
    write_scan(path, replace(scan, frames=frames, mask=None, probe=probe, name="odd.cxi"))
    assert words in attempt(command, file=path)


def test_inspect_says_which_sizes_work(scan, tmp_path, ptychow):
    path = tmp_path / "odd.cxi"
    write_scan(path, replace(scan, frames=scan.frames[:, :30, :30], probe=None))
    assert (
        "no network takes frames of 30 x 30 (square, a multiple of 16): crop or bin to 16"
        in ptychow("inspect", path)[1]
    )


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_scan_without_labels(command, attempt, scan, tmp_path):
    path = tmp_path / "raw.cxi"
    write_scan(path, replace(scan, object=None))
    complaint = attempt(command, file=path)
    assert "raw.cxi" in complaint and "ptychow label" in complaint


@pytest.mark.parametrize("command", ["reconstruct", "evaluate"])
def test_a_model_for_another_pixel_size(command, attempt, scan, tmp_path):
    path = tmp_path / "other.cxi"
    write_scan(path, replace(scan, geometry=replace(scan.geometry, pixel_size=13e-9)))
    assert "object pixel of 13 nm, but the Model was made for 10 nm" in attempt(command, file=path)


MODEL_DAMAGES = {
    "missing": (lambda path, scan_file: path.unlink(), "no such Model file"),
    "folder": (lambda path, scan_file: (path.unlink(), path.mkdir()), "no such Model file"),
    "truncated": (lambda path, scan_file: path.write_bytes(path.read_bytes()[:-999]), "not a Model file, or damaged"),
    "empty": (lambda path, scan_file: path.write_bytes(b""), "not a Model file, or damaged"),
    "a scan": (lambda path, scan_file: path.write_bytes(scan_file.read_bytes()), "not a Model file, or damaged"),
}


@pytest.mark.parametrize("command", ["reconstruct", "evaluate"])
@pytest.mark.parametrize("damage", MODEL_DAMAGES)
def test_a_damaged_model(damage, command, attempt, scan_file, model_file):
    make, words = MODEL_DAMAGES[damage]
    make(model_file, scan_file)
    complaint = attempt(command)
    assert words in complaint and "model.safetensors" in complaint


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_below_a_file(command, attempt, tmp_path):
    (tmp_path / "file").write_text("")
    complaint = attempt(command, "--output", tmp_path / "file" / "result", code=1)
    assert f"{tmp_path / 'file'} is not a folder" in complaint


def test_a_fetched_scan_below_a_file_is_refused_before_any_download(ptychow, tmp_path):
    (tmp_path / "file").write_text("")
    code, shown, complaint = ptychow("fetch", "siemens-star", "--output", tmp_path / "file" / "a.cxi")
    assert (code, shown) == (1, "") and "is not a folder" in complaint and complaint.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_without_permission(command, attempt, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    assert "no permission to write" in attempt(command, "--output", folder / "result", code=1)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_is_the_input(command, attempt, scan_file):
    assert "would overwrite the input" in attempt(command, "--output", scan_file)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_is_somebody_elses(command, attempt, scan_file, tmp_path):
    """Only what PtychoW wrote is replaced: no raw scan, whatever its name, and no report."""
    raw, report = tmp_path / f"raw{suffix(command)}", tmp_path / "report.pdf"
    with h5py.File(raw, "w") as file:
        file["entry/data"] = np.ones((3, 8, 8), np.uint16)
    report.write_bytes(b"%PDF-1.7")
    for target in (raw, report):
        words = "no format for a picture|names a|not a Model's name|would overwrite what PtychoW did not write"
        assert re.search(words, attempt(command, "--output", target))


@pytest.mark.parametrize("command", ["label", "train", "reconstruct", "evaluate", "prepare"])
def test_an_output_that_is_the_file_of_positions(command, attempt, scan_file, tmp_path):
    table = tmp_path / f"positions{suffix(command)}"
    table.write_text("y_px,x_px\n" + "".join(f"{3 * row},{3 * (row % 8)}\n" for row in range(80)))
    assert "would overwrite the input" in attempt(command, "--positions", table, "--output", table)


def test_an_output_that_is_the_mask(attempt, tmp_path):
    mask = tmp_path / "mask.cxi"
    mask.write_text("3,4\n")
    assert "would overwrite the input" in attempt("prepare", "--mask", mask, "--output", mask)


@pytest.mark.parametrize("command", ["inspect"])
def test_a_picture_in_no_known_format(command, attempt, tmp_path):
    assert "no format for a picture" in attempt(command, "--output", tmp_path / "picture.docx")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_that_fills_up(command, attempt, tmp_path):
    with no_file_beyond(500):
        complaint = attempt(command, "--output", tmp_path / f"result{suffix(command)}", code=1)
    assert "cannot be written" in complaint and "result" in complaint


@pytest.fixture
def tiny_disk(tmp_path):
    """A real file system without room for a byte more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no permission to mount a small file system")
    try:
        with pytest.raises(OSError, match="No space left"):
            (folder / "filler").write_bytes(bytes(20_000))
        yield folder
    finally:
        subprocess.run(["umount", folder], check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_real_full_disk(command, attempt, tiny_disk):
    complaint = attempt(command, "--output", tiny_disk / f"result{suffix(command)}", code=1)
    assert "No space left on device" in complaint and "result" in complaint


def suffix(command):
    return {"inspect": ".png", "train": ".safetensors", "evaluate": ".json"}.get(command, ".cxi")


# Where Ctrl-C finds each command at work.
AT_WORK = {
    "inspect": ("ptychow.inspection", "measure_frames"),
    "label": ("ptychow.solver.engine", "_untouched_process"),
    "train": ("ptychow.training.fit", "_batches"),
    "reconstruct": ("ptychow.reconstruction", "central_crop"),
    "evaluate": ("ptychow.metrics", "patch_metrics"),
    "simulate": ("ptychow.optics.simulate", "_expected_counts"),
    "prepare": ("ptychow.detector_steps", "refuse_negative"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c(command, attempt, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    module, function = AT_WORK[command]
    monkeypatch.setattr(import_module(module), function, interrupted)
    assert "interrupted" in attempt(command, code=1)


@pytest.mark.parametrize("command", ["inspect", "train", "reconstruct", "evaluate"])
def test_ctrl_c_while_writing(command, attempt, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("ptychow.files.Path.chmod", interrupted)
    assert "interrupted" in attempt(command, code=1)


def test_other_formats_complain_alike(attempt, scan, tmp_path):
    corner = scan.positions_px - 16
    files = {
        "npz without positions": ({"diffraction": scan.frames}, "holds no positions that are named"),
        "npz with fewer positions": ({"diffraction": scan.frames, "positions_px": corner[:9]}, "9 positions for 80"),
        "npz with a flat probe": (
            {"diffraction": scan.frames, "positions_px": corner, "probe": scan.probe[0]},
            "probe",
        ),
        "npz of one frame": ({"diffraction": scan.frames[0], "positions_px": corner}, "not a stack of images"),
        "npz with NaN positions": ({"diffraction": scan.frames, "positions_px": corner * np.nan}, "80 not finite"),
        "npz of text": ({"diffraction": np.array(["a"]), "positions_px": corner}, "not a plain array of numbers"),
        "ptychonn without a step": ({"arr_0": scan.frames.reshape(20, 4, 32, 32)}, "step of the raster is not in"),
        "ptychonn of three dimensions": ({"arr_0": scan.frames}, "holds no positions that are named"),
    }
    for name, (arrays, words) in files.items():
        path = tmp_path / f"{name.replace(' ', '_')}.npz"
        np.savez(path, **arrays)
        complaint = attempt("inspect", file=path)
        assert words in complaint and path.name in complaint, name


def test_pickles_are_never_opened(attempt, tmp_path):
    path = tmp_path / "trap.npz"
    np.savez(path, diffraction=np.array([ctypes.c_int], object), positions_px=np.zeros((1, 2)), allow_pickle=True)
    assert "Pickled objects are never opened" in attempt("inspect", file=path)
