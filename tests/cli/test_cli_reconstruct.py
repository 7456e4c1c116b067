"""`ptychow reconstruct`: a scan and a Model to an object and a picture."""

import json
from dataclasses import replace

import numpy as np
import pytest

from conftest import small_scan
from ptychow.formats import write_scan
from ptychow.formats.cxi import read_object
from ptychow.reconstruction import reconstruct
from ptychow.scan import Geometry


def test_writes_object_and_picture_beside_the_scan(scan_file, model_file, trained, scan, ptychow):
    code, shown, complaint = ptychow("reconstruct", scan_file, "--model", model_file, "--device", "cpu")
    assert code == 0 and complaint == "" and "80 frames in" in shown and "frames/s" in shown
    expected = reconstruct(scan, trained.model, device="cpu").image
    saved = read_object(scan_file.with_name("scan_model.cxi"))
    np.testing.assert_array_equal(saved.image, expected.image)
    assert scan_file.with_name("scan_model.png").read_bytes().startswith(b"\x89PNG")


def test_results_of_two_models_of_one_network_are_told_apart(scan_file, model_file, ptychow):
    other = model_file.with_name("other.safetensors")
    other.write_bytes(model_file.read_bytes())
    for model in (model_file, other):
        code, shown, _ = ptychow("reconstruct", scan_file, "--model", model, "--device", "cpu", "--json")
        summary = json.loads(shown)
        assert code == 0 and (summary["model"], summary["network"]) == (model.stem, "w3")
    for name in ("model", "other"):
        assert f"Model {name}," in read_object(scan_file.with_name(f"scan_{name}.cxi")).source


def test_json_is_one_object_and_quiet_is_silent(scan_file, model_file, tmp_path, ptychow, monkeypatch):
    monkeypatch.setattr("ptychow.devices.has_bfloat16", lambda device: True)
    target = tmp_path / "out.cxi"
    given = ("reconstruct", scan_file, "-m", model_file, "--device", "cpu", "-o", target)
    code, shown, _ = ptychow(*given, "--json", "--stitching", "central-crop", "--scale", "model")
    summary = json.loads(shown)
    assert code == 0 and summary["frames"] == 80 and summary["stitching"] == "central-crop"
    assert summary["wrote"] == {"object": str(target), "picture": str(target.with_suffix(".png"))}
    assert ptychow(*given, "--quiet", "--precision", "bf16") == (0, "", "")


def test_a_precision_that_the_processor_imitates_is_said(scan_file, model_file, tmp_path, ptychow, monkeypatch):
    monkeypatch.setattr("ptychow.devices.has_bfloat16", lambda device: False)
    given = ("reconstruct", scan_file, "-m", model_file, "--device", "cpu", "-o", tmp_path / "out.cxi", "--quiet")
    code, _, complaint = ptychow(*given, "--precision", "bf16")
    assert code == 0 and complaint.startswith("warning: this processor has no instructions for bf16")
    assert ptychow(*given, "--precision", "fp32") == (0, "", "")


def test_what_does_not_match_is_refused_and_force_goes_on_with_a_warning(model_file, tmp_path, ptychow):
    path = tmp_path / "other.cxi"
    write_scan(path, replace(small_scan(), geometry=Geometry(pixel_size=20e-9)))
    code, shown, complaint = ptychow("reconstruct", path, "--model", model_file, "--device", "cpu")
    assert (code, shown) == (2, "") and complaint.count("\n") == 1 and "--force" in complaint and "20 nm" in complaint
    code, _, complaint = ptychow("reconstruct", path, "--model", model_file, "--device", "cpu", "--force", "--quiet")
    assert code == 0 and complaint.startswith("warning: forced: object pixel of 20 nm")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--stitching", "sewing"], "--stitching"),
        (["--scale", "large"], "--scale"),
        (["--precision", "int8"], "--precision"),
        (["--device", "nonsense"], "device"),
        (["--output", "scan.cxi"], "would overwrite the input"),
        (["--output", "model.safetensors"], "would overwrite the input"),
        (["--output", "picture.png"], "names a picture"),
        (["--workers", "2"], "--workers"),
        (["--workers", "2", "--cluster", "tcp://127.0.0.1:9"], "--workers"),
        (["--cluster", "local", "--positions", "positions.txt"], "--positions"),
        (["--cluster", "local", "--refine"], "--refine"),
        (["--cluster", "local", "--refine-epochs", "1"], "--refine-epochs"),
        (["--cluster", "local", "--refine-seconds", "1"], "--refine-seconds"),
    ],
)
def test_options_that_make_no_sense_are_one_line_and_code_2(
    options, words, scan_file, model_file, ptychow, monkeypatch
):
    monkeypatch.chdir(scan_file.parent)
    before = {item: item.read_bytes() for item in scan_file.parent.iterdir()}
    code, shown, complaint = ptychow("reconstruct", "scan.cxi", "--model", "model.safetensors", *options)
    assert (code, shown) == (2, "") and complaint.count("\n") == 1 and words in complaint
    assert {item: item.read_bytes() for item in scan_file.parent.iterdir()} == before


def test_a_pattern_of_files_names_the_cluster(ptychow, model_file, tmp_path):
    code, _, complaint = ptychow("reconstruct", tmp_path / "scans*.cxi", "--model", model_file)
    assert code == 2 and "--cluster local" in complaint
