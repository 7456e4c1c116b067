"""`ptychow evaluate`: the table beside a flat patch, the JSON, the picture."""

import json

import numpy as np
import pytest

from ptychow.evaluation import evaluate
from ptychow.patches import PatchExtractor


def test_prints_the_tables_and_writes_numbers_and_picture(scan_file, model_file, trained, scan, ptychow):
    code, shown, complaint = ptychow("evaluate", model_file, scan_file, "--device", "cpu")
    assert code == 0 and complaint == ""
    for words in ("share no object pixel", "phase, unexplained variance", "flat patch", "Stitched", "Per patch"):
        assert words in shown
    numbers = json.loads(scan_file.with_name("scan_model_evaluation.json").read_text())
    expected = evaluate(trained.model, scan, device="cpu")
    assert numbers["stitched"]["phase_unexplained_variance"] == pytest.approx(expected.headline, rel=1e-4)
    assert numbers["stitched_flat"]["phase_unexplained_variance"] == pytest.approx(1, abs=0.3)
    assert scan_file.with_name("scan_model_evaluation.png").read_bytes().startswith(b"\x89PNG")


def test_two_scans_have_two_evaluations_and_both_say_which_model(scan_file, model_file, ptychow):
    second = scan_file.with_name("second.cxi")
    second.write_bytes(scan_file.read_bytes())
    for file in (scan_file, second):
        assert ptychow("evaluate", model_file, file, "--device", "cpu", "--quiet")[0] == 0
        numbers = json.loads(file.with_name(f"{file.stem}_model_evaluation.json").read_text())
        assert (numbers["scan"], numbers["model"], numbers["network"]) == (file.name, "model", "w3")


def test_json_is_one_object_and_quiet_is_silent(scan_file, model_file, tmp_path, ptychow):
    target = tmp_path / "e.json"
    given = ("evaluate", model_file, scan_file, "--device", "cpu", "-o", target)
    code, shown, _ = ptychow(*given, "--json", "--region", "all")
    summary = json.loads(shown)
    assert code == 0 and summary["frames"] == 80 and "all frames" in summary["region"]
    assert summary["wrote"] == {
        "metrics": str(target),
        "picture": str(target.with_suffix(".png")),
        "Fourier ring correlation": str(target.with_name(f"{target.stem}_frc.png")),
    }
    assert ptychow(*given, "--quiet") == (0, "", "")


def test_the_ptychonn_layout_from_training_to_numbers(scan, tmp_path, ptychow):
    """Frames and label patches without object and probe: the paper's recipe and the notebooks' stitching."""
    np.savez(tmp_path / "x_diff.npz", arr_0=scan.frames.reshape(20, 4, 32, 32))
    patches = PatchExtractor(scan.object, 32)(scan.positions_px).reshape(20, 4, 32, 32)
    np.save(tmp_path / "x_amp_pha.npy", patches)
    file, step = tmp_path / "x_diff.npz", ("--map", "step_px=6")
    model = tmp_path / "m.safetensors"
    recipe = ("--recipe", "paper", "--epochs", 2, "--batch-size", 8, "--device", "cpu")
    code, _, complaint = ptychow("train", file, *step, *recipe, "--holdout", 0.1, "-o", model, "--quiet")
    assert (code, complaint) == (0, "")
    code, _, complaint = ptychow("evaluate", model, file, *step, "--device", "cpu")
    assert code == 2 and "--stitching central-crop" in complaint
    crop = ("--stitching", "central-crop", "--device", "cpu")
    code, shown, _ = ptychow("evaluate", model, file, *step, *crop)
    assert code == 0 and "Per patch" in shown and "Stitched" not in shown
    written = tmp_path / "x_diff_m_evaluation.json"
    assert written.is_file() and not written.with_suffix(".png").exists()
    code, _, complaint = ptychow("reconstruct", file, "--model", model, *step, *crop, "--quiet")
    assert code == 0 and (tmp_path / "x_diff_m.cxi").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--region", "north"], "--region"),
        (["--stitching", "sewing"], "--stitching"),
        (["--device", "nonsense"], "device"),
        (["--output", "scan.cxi"], "would overwrite the input"),
        (["--output", "model.safetensors"], "would overwrite the input"),
        (["--output", "e.png"], "names a picture"),
    ],
)
def test_options_that_make_no_sense_are_one_line_and_code_2(
    options, words, scan_file, model_file, ptychow, monkeypatch
):
    monkeypatch.chdir(scan_file.parent)
    before = {item: item.read_bytes() for item in scan_file.parent.iterdir()}
    code, shown, complaint = ptychow("evaluate", "model.safetensors", "scan.cxi", *options)
    assert (code, shown) == (2, "") and complaint.count("\n") == 1 and words in complaint
    assert {item: item.read_bytes() for item in scan_file.parent.iterdir()} == before
