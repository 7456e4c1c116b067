"""`ptychow train` from files to files; a real interrupt, and on to the same bits."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from conftest import briefly
from ptychow.errors import PtychoWError
from ptychow.formats import write_scan
from ptychow.model import Model

QUICK = ("--network", "w3", "--epochs", 2, "--batch-size", 8, "--device", "cpu")


def test_writes_model_curves_and_picture_beside_the_scan(scan_file, ptychow):
    code, shown, complaint = briefly(ptychow("train", scan_file, *QUICK, "--holdout", 0.1))
    assert (code, complaint) == (0, "")
    folder = scan_file.parent
    names = {item.name for item in folder.iterdir()}
    assert names == {"scan.cxi", "scan_w3.safetensors", "scan_w3_training.json", "scan_w3_training.png"}
    assert all(f"{folder / name}" in shown for name in names - {"scan.cxi"})
    assert "24 training, 8 validation, 8 held-out frames" in shown
    assert (folder / "scan_w3_training.png").read_bytes().startswith(b"\x89PNG")
    history = json.loads((folder / "scan_w3_training.json").read_text())
    assert len(history["history"]["train_loss"]) == 2 and history["recipe"]["name"] == "ptychow"
    card = Model.load(folder / "scan_w3.safetensors").card
    assert card.network == "w3" and card.metrics["frames"] == 8


def test_w1_is_the_default_and_settings_are_the_networks(scan_file, tmp_path, ptychow):
    quick = ("--epochs", 1, "--batch-size", 8, "--device", "cpu", "--validation", 0, "--quiet")
    assert briefly(ptychow("train", scan_file, *quick)) == (0, "", "")
    assert Model.load(scan_file.with_name("scan_w1.safetensors")).card.network == "w1"
    smaller = (
        "--network",
        "ptychonn",
        "--set",
        "nconv=8",
        "--set",
        "batch_norm=true",
        "--output",
        tmp_path / "m.safetensors",
    )
    assert briefly(ptychow("train", scan_file, *quick, *smaller)) == (0, "", "")
    settings = Model.load(tmp_path / "m.safetensors").card.settings
    assert settings["nconv"] == 8 and settings["batch_norm"] is True


@pytest.mark.parametrize(
    ("setting", "said"),
    [("nconv", "NAME=VALUE"), ("depth=3", "unknown setting of ptychonn"), ("batch_norm=maybe", "such as False")],
)
def test_a_setting_that_the_network_does_not_have(setting, said, scan_file, ptychow):
    code, _, complaint = ptychow("train", scan_file, "--network", "ptychonn", "--epochs", 1, "--set", setting)
    assert code == 2 and said in complaint and complaint.count("\n") == 1


def test_json_is_one_object(scan_file, tmp_path, ptychow):
    target = tmp_path / "new" / "m.safetensors"
    options = ("--network", "ptychonn", "--recipe", "paper", "--split", "random", "--output", target, "--json")
    code, shown, complaint = briefly(ptychow("train", scan_file, *QUICK, *options))
    assert (code, complaint) == (0, "")
    summary = json.loads(shown)
    assert summary["network"] == "ptychonn" and summary["split"] == "random" and summary["epochs"] == 2
    assert summary["wrote"]["Model"] == str(target) and target.is_file()
    assert Model.load(target).card.gauge == "absolute"


def test_the_model_is_there_whatever_becomes_of_its_evaluation(scan_file, ptychow, monkeypatch):
    def fails(*unused, **options):
        raise PtychoWError("out of memory")

    monkeypatch.setattr("ptychow.evaluation.evaluate", fails)
    code, _, complaint = ptychow("train", scan_file, *QUICK, "--holdout", 0.1)
    assert code == 1 and "out of memory" in complaint
    assert Model.load(scan_file.with_name("scan_w3.safetensors")).card.network == "w3"


def test_quiet_says_nothing(scan_file, tmp_path, ptychow):
    assert briefly(ptychow("train", scan_file, *QUICK, "--output", tmp_path, "--quiet")) == (0, "", "")
    assert (tmp_path / "scan_w3.safetensors").is_file()


def test_tensorboard_is_written_or_its_extra_is_named(scan_file, tmp_path, ptychow):
    code, _, complaint = ptychow("train", scan_file, *QUICK, "--tensorboard", tmp_path / "logs", "--quiet")
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        assert code == 1 and "pip install '.[tensorboard]'" in complaint
        assert [item.name for item in tmp_path.iterdir()] == ["scan.cxi"]
    else:
        assert code == 0 and list((tmp_path / "logs").iterdir())


def test_a_training_interrupted_by_a_signal_resumes_to_the_same_bits(scan_file, tmp_path, ptychow):
    options = [
        str(part) for part in ("--network", "w3", "--epochs", 10, "--batch-size", 8, "--device", "cpu", "--seed", 4)
    ]
    command = [sys.executable, "-c", "from ptychow.cli import main; main()", "train", str(scan_file), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    checkpoint = scan_file.with_name("scan_w3_checkpoint.safetensors")
    until = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    shown, complaint = process.communicate(timeout=60)
    assert process.returncode == 1 and shown == ""
    assert complaint.startswith("error: interrupted after ") and complaint.count("\n") == 1
    assert "--resume goes on" in complaint
    assert {item.name for item in tmp_path.iterdir()} == {"scan.cxi", checkpoint.name}

    code, _, complaint = ptychow("train", scan_file, *options)
    assert code == 2 and "an interrupted training would be lost" in complaint and "--resume" in complaint

    # Other options are another training.
    code, _, complaint = ptychow("train", scan_file, *options, "--resume", "--learning-rate", 0.1)
    assert code == 2 and "belongs to another training" in complaint

    assert ptychow("train", scan_file, *options, "--resume", "--quiet")[0] == 0
    assert not checkpoint.exists()
    straight = tmp_path / "straight.safetensors"
    assert ptychow("train", scan_file, *options, "--output", straight, "--quiet")[0] == 0
    resumed = Model.load(scan_file.with_name("scan_w3.safetensors")).network.state_dict()
    for name, value in Model.load(straight).network.state_dict().items():
        np.testing.assert_array_equal(resumed[name], value)
    curves = [
        json.loads((tmp_path / f"{name}_training.json").read_text())["history"] for name in ("scan_w3", "straight")
    ]
    for name in ("train_loss", "validation_loss", "learning_rate", "best_epoch"):
        assert curves[0][name] == curves[1][name]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["scan.cxi", "--positions", "stage.txt"], "--positions: goes with one scan"),
        (["--positions", "stage.txt"], "stage.txt"),
        (["--epochs", 0], "epochs"),
        (["--batch-size", 0], "batch_size"),
        (["--learning-rate", "-1"], "learning_rate"),
        (["--schedule", "sawtooth"], "schedule"),
        (["--network", "w9"], "unknown network"),
        (["--recipe", "secret"], "unknown recipe"),
        (["--split", "cross"], "--split"),
        (["--precision", "int8"], "--precision"),
        (["--device", "nonsense"], "device"),
        (["--size", 24], "a frame size no network takes|sizes that work"),
        (["--resume"], "nothing to resume"),
        (["--split", "random", "--holdout", 0.2], "only the spatial split"),
        (["--pixel-size-nm", 12], "contradicts the file"),
        (["--pixel-size-nm", "-3"], "pixel_size"),
        (["--map", "nonsense"], "--map"),
        (["--map", "frames=/a"], "mapping"),
        (["--output", "scan.cxi"], "would overwrite the input"),
        (["--output", "model.png"], "names a picture"),
        (["--output", "model.cxi"], "expected a name in .safetensors"),
    ],
)
def test_options_that_make_no_sense_are_one_line_and_code_2(options, words, scan_file, ptychow, monkeypatch):
    monkeypatch.chdir(scan_file.parent)
    code, shown, complaint = ptychow("train", "scan.cxi", "--device", "cpu", "--epochs", 1, *options)
    assert (code, shown) == (2, "") and complaint.count("\n") == 1
    assert any(word in complaint for word in words.split("|"))
    assert [item.name for item in scan_file.parent.iterdir()] == ["scan.cxi"]


def test_the_held_out_part_is_measured_and_kept_in_the_model(ptychow, scan_file, tmp_path):
    target = tmp_path / "measured.safetensors"
    arguments = ("--epochs", 1, "--validation", 0, "--holdout", 0.1, "--device", "cpu", "--output", target)
    code, printed, _ = ptychow("train", scan_file, *arguments)
    metrics = Model.load(target).card.metrics
    assert code == 0 and "held-out part of the first scan: unexplained phase variance" in printed
    assert metrics["stitched"]["phase_unexplained_variance"] > 0 and metrics["frames"] > 0


def test_a_teacher_labels_scans_that_have_no_labels(trained, scan, scan_file, tmp_path, ptychow):
    teacher, unlabelled = tmp_path / "teacher.safetensors", tmp_path / "unlabelled.cxi"
    trained.model.save(teacher)
    write_scan(unlabelled, replace(scan, object=None))
    options = ("--network", "w3f", "--teacher", teacher, "--holdout", 0.1)
    code, shown, complaint = briefly(ptychow("train", unlabelled, *QUICK, *options))
    assert (code, complaint) == (0, "") and "held-out part" not in shown
    card = Model.load(tmp_path / "unlabelled_w3f.safetensors").card
    assert card.data[0].labels == "label patches" and card.metrics == {}
    # Where there are labels, what is measured on the held-out part is measured with them.
    code, shown, _ = ptychow("train", scan_file, *QUICK, *options)
    assert code == 0 and "held-out part" in shown


@pytest.mark.parametrize(
    "options", [("--start",), ("--physics", "amplitude", "--no-labels", "--start"), ("--teacher",)]
)
def test_the_model_it_begins_with_is_not_written_over(trained, scan_file, ptychow, options):
    begun = scan_file.with_name("scan_w3.safetensors")
    trained.model.save(begun)
    before = begun.read_bytes()
    code, _, complaint = ptychow("train", scan_file, *QUICK, *options, begun)
    assert code == 2 and "would overwrite the input" in complaint
    assert begun.read_bytes() == before


def test_a_size_does_not_go_with_a_model_that_has_one(trained, scan_file, tmp_path, ptychow):
    trained.model.save(tmp_path / "start.safetensors")
    code, _, complaint = ptychow("train", scan_file, *QUICK, "--size", 16, "--start", tmp_path / "start.safetensors")
    assert code == 2 and "--size: does not go with --start" in complaint
