"""`ptychow reconstruct --refine` and `ptychow refine`, from files to files."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from ptychow.formats import read_scan, write_scan

pytest.importorskip("ptychi.api.task")


@pytest.fixture
def measured_file(scan, tmp_path):
    """The small scan with its probe, without its object."""
    path = tmp_path / "step.cxi"
    write_scan(path, replace(scan, object=None))
    return path


def test_reconstruct_and_refine_in_one(ptychow, measured_file, model_file, tmp_path):
    target = tmp_path / "found.cxi"
    options = "--model", model_file, "--refine-epochs", 2, "--device", "cpu", "--output", target
    code, said, _ = ptychow("reconstruct", measured_file, *options)
    assert code == 0
    assert "2 epochs in" in said and "started from" in said
    with h5py.File(target) as file:
        assert file["entry_1/image_1/data"].shape == file["entry_1/image_2/data"].shape
        assert file["entry_1/image_1"].attrs["source"].startswith("LSQML")
        assert file["entry_1/image_2"].attrs["source"].startswith("network")
        assert json.loads(file["entry_1/ptychow/summary"].asstr()[()])["refinement"]["epochs"] == 2
    assert target.with_suffix(".png").exists()


def test_refine_runs_until_a_plateau_or_the_time(ptychow, measured_file, model_file, tmp_path):
    options = "--model", model_file, "--device", "cpu", "--json", "--output", tmp_path / "a.cxi"
    code, said, _ = ptychow("reconstruct", measured_file, *options, "--refine-seconds", 0)
    assert code == 0 and json.loads(said)["refinement"]["epochs"] == 1
    code, said, _ = ptychow("reconstruct", measured_file, *options, "--refine")
    assert code == 0 and 10 <= json.loads(said)["refinement"]["epochs"] <= 100


def test_refine_takes_an_object_from_a_file(ptychow, scan, scan_file, measured_file, tmp_path):
    target = tmp_path / "fine.cxi"
    options = "--epochs", 2, "--device", "cpu", "--output", target
    code, said, _ = ptychow("refine", measured_file, scan_file, *options)
    assert code == 0 and "the object given" in said
    refined = read_scan(target)
    assert refined.object.source.startswith("LSQML") and "2 epochs" in refined.object.source
    assert np.array_equal(refined.frames[:], scan.frames[:])
    assert target.with_suffix(".png").exists()
    code, said, _ = ptychow("refine", measured_file, scan_file, *options, "--json")
    assert code == 0 and len(json.loads(said)["errors"]) == 2


def test_an_object_that_is_of_no_help_is_a_warning(ptychow, scan, measured_file, tmp_path):
    image = np.exp(2j * np.pi * np.random.default_rng(0).random(scan.object.image.shape)).astype(np.complex64)
    write_scan(tmp_path / "noise.cxi", replace(scan, object=replace(scan.object, image=image)))
    options = "--epochs", 1, "--device", "cpu", "--output", tmp_path / "fine.cxi", "--quiet"
    code, _, complaint = ptychow("refine", measured_file, tmp_path / "noise.cxi", *options)
    assert (
        code == 0 and "warning: the object given does not explain the frames: started from a flat object" in complaint
    )


def test_refine_refuses_what_does_not_belong(ptychow, measured_file, scan_file):
    code, _, complaint = ptychow("refine", measured_file, measured_file)
    assert code == 2 and "step.cxi" in complaint
    with h5py.File(scan_file, "r+") as file:
        file["entry_1/ptychow/pixel_size"][()] = 5e-9
        for name in ("wavelength", "energy"):
            if name in file["entry_1/instrument_1/source_1"]:
                del file["entry_1/instrument_1/source_1"][name]
    code, _, complaint = ptychow("refine", measured_file, scan_file)
    assert code == 2 and "of another object pixel" in complaint and "reconstruct --refine" in complaint
