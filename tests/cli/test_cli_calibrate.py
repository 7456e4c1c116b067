"""`ptychow calibrate` from a scan file to Model, object and picture; and `train` going on from a Model."""

import json
from dataclasses import replace

import pytest
import torch

from conftest import briefly
from ptychow import training
from ptychow.formats import read_scan, write_scan
from ptychow.model import Model
from ptychow.scan import Geometry
from ptychow.training import fit, label_free

QUICK = ("--network", "w3", "--steps", 2, "--diffraction-steps", 0, "--device", "cpu")


def test_writes_model_object_and_picture_beside_the_scan(scan_file, ptychow):
    code, shown, complaint = ptychow("calibrate", scan_file, *QUICK, "--probe-epochs", 0)
    assert code == 0 and "pixel size" not in complaint
    folder = scan_file.parent
    names = {item.name for item in folder.iterdir()}
    assert names == {"scan.cxi", "scan_w3.safetensors", "scan_w3.cxi", "scan_w3.png"}
    assert all(f"{folder / name}" in shown for name in names - {"scan.cxi"})
    assert (folder / "scan_w3.png").read_bytes().startswith(b"\x89PNG")
    card = Model.load(folder / "scan_w3.safetensors").card
    assert card.training["steps"] == 2 and card.recipe["name"] == "label-free"


def test_after_the_simulated_samples_comes_the_scans_own_diffraction(scan_file, ptychow):
    options = ("--network", "w3", "--steps", 2, "--diffraction-steps", 3, "--probe-epochs", 0, "--device", "cpu")
    code, shown, _ = ptychow("calibrate", scan_file, *options)
    assert code == 0 and "label-free: 2 steps" in shown and "diffraction: 3 steps" in shown
    card = Model.load(scan_file.with_name("scan_w3.safetensors")).card
    assert card.recipe["physics"] == "amplitude" and card.training["started_from"]["steps"] == 2
    assert all(data.labels.startswith("none") for data in card.data)


def short_epochs(monkeypatch, steps):
    for name in ("LABEL_FREE", "DIFFRACTION"):
        recipe = getattr(training, name).model_copy(update={"steps_per_epoch": steps})
        monkeypatch.setattr(training, name, recipe)


def interrupt_after(monkeypatch, saves):
    """Ctrl-C right after the training's state has been kept so many times."""
    kept = []
    real = fit.save_checkpoint

    def save(*given):
        real(*given)
        kept.append(given)
        if len(kept) == saves:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit, "save_checkpoint", save)


@pytest.mark.parametrize("saves", [1, 2, 3, 4])
def test_goes_on_wherever_it_was_interrupted(saves, scan_file, tmp_path, ptychow, monkeypatch):
    """Two epochs on samples, two on diffraction: Ctrl-C after each, and the weights are those of no interruption."""
    short_epochs(monkeypatch, 1)
    options = ("--network", "w3", "--steps", 2, "--diffraction-steps", 2, "--probe-epochs", 0, "--device", "cpu")
    whole, target = tmp_path / "whole.safetensors", tmp_path / "model.safetensors"
    assert ptychow("calibrate", scan_file, *options, "-o", whole)[0] == 0
    with monkeypatch.context() as patch:
        interrupt_after(patch, saves)
        code, _, complaint = ptychow("calibrate", scan_file, *options, "-o", target)
    assert code == 1 and "interrupted after" in complaint and "Traceback" not in complaint
    code, _, complaint = ptychow("calibrate", scan_file, *options, "-o", target)
    assert code == 2 and "--resume" in complaint
    code, _, complaint = ptychow("calibrate", scan_file, *options, "-o", target, "--resume")
    assert code == 0, complaint
    assert not list(tmp_path.glob("*_checkpoint*"))
    expected, found = (Model.load(path).network.state_dict() for path in (whole, target))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_minutes_go_on_with_the_steps_they_were_found_to_be(scan_file, ptychow, monkeypatch):
    options = ("--network", "w3", "--minutes", 0.001, "--diffraction-steps", 0, "--probe-epochs", 0, "--device", "cpu")
    short_epochs(monkeypatch, 2)
    monkeypatch.setattr(label_free, "TRIAL_STEPS", 1)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        assert ptychow("calibrate", scan_file, *options)[0] == 1
    code, _, complaint = ptychow("calibrate", scan_file, *options, "--resume")
    assert code == 0, complaint
    card = Model.load(scan_file.with_name("scan_w3.safetensors")).card
    assert card.training["epochs"] == card.recipe["epochs"] >= 1


def test_a_scan_without_a_probe_gets_one(unlabelled, tmp_path, ptychow):
    pytest.importorskip("ptychi")
    path = tmp_path / "raw.cxi"
    write_scan(path, unlabelled)
    assert read_scan(path).probe is None
    code, shown, complaint = ptychow("calibrate", path, *QUICK, "--probe-epochs", 2, "--modes", 2, "--json")
    assert code == 0, complaint
    summary = json.loads(shown)
    assert summary["steps"] == 2 and summary["reconstruction"]["frames"] == len(unlabelled)
    assert Model.load(summary["wrote"]["Model"]).probe.shape == (2, 32, 32)


def test_without_a_probe_and_without_epochs_it_says_what_to_do(unlabelled, tmp_path, ptychow):
    path = tmp_path / "raw.cxi"
    write_scan(path, unlabelled)
    code, _, complaint = ptychow("calibrate", path, *QUICK, "--probe-epochs", 0)
    assert code == 2 and "probe" in complaint and "--probe-epochs 20" in complaint


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--steps", 2, "--minutes", 1), "--minutes"),
        (("--resume", "--minutes", 1), "nothing to resume"),
        (("--resume", "--steps", 2), "nothing to resume"),
        (("--network", "w9", "--steps", 2), "unknown network"),
        (("--set", "nconv=many", "--network", "ptychonn"), "nconv"),
        (("--size", 48), "size"),
    ],
)
def test_options_that_make_no_sense(options, said, scan_file, ptychow, monkeypatch):
    """Said before minutes go into a probe."""
    monkeypatch.setattr("ptychow.solver.label", lambda *given, **more: pytest.fail("looks for a probe"))
    code, _, complaint = ptychow("calibrate", scan_file, "--probe-epochs", 20, *options)
    assert code == 2 and said in complaint
    assert {item.name for item in scan_file.parent.iterdir()} == {"scan.cxi"}


def test_training_goes_on_from_a_model_by_physics_alone(scan_file, model_file, tmp_path, ptychow):
    target = tmp_path / "finer.safetensors"
    options = ("--start", model_file, "--physics", "poisson", "--no-labels", "--split", "none", "--epochs", 1)
    result = ptychow("train", scan_file, *options, "--device", "cpu", "--output", target, "--quiet")
    assert briefly(result) == (0, "", "")
    card = Model.load(target).card
    assert card.recipe["physics"] == "poisson" and card.training["started_from"]["epochs"] == 2


def test_training_options_that_contradict_each_other(scan_file, model_file, ptychow):
    code, _, complaint = ptychow("train", scan_file, "--start", model_file, "--network", "w1")
    assert code == 2 and "not the network of --start" in complaint
    code, _, complaint = ptychow("train", scan_file, "--no-labels")
    assert code == 2 and "--physics amplitude" in complaint


def test_the_object_is_never_written_over_the_scan(scan_file, ptychow):
    before = scan_file.read_bytes()
    target = scan_file.with_suffix(".safetensors")
    code, _, complaint = ptychow("calibrate", scan_file, *QUICK, "--probe-epochs", 0, "--output", target)
    assert code == 2 and "would overwrite the input" in complaint and str(scan_file) in complaint
    assert scan_file.read_bytes() == before and not target.exists()


def test_what_is_wrong_with_a_scan_is_said_to_machines_too(scan, tmp_path, ptychow):
    path = tmp_path / "unknown.cxi"
    write_scan(path, replace(scan, positions=scan.positions_px, position_unit="px", geometry=Geometry()))
    code, shown, complaint = ptychow("calibrate", path, *QUICK, "--probe-epochs", 0, "--json")
    assert code == 0 and json.loads(shown) and "pixel size" in complaint
