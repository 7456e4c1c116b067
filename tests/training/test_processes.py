"""One training in several processes is the training of one; a killed process costs no more than an epoch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from ptychow.errors import InputError
from ptychow.formats import write_scan
from ptychow.model import Model
from ptychow.optics.twins import twin
from ptychow.training.processes import adopt_slurm, launch, require_equal_shares

OPTIONS = ["--recipe", "paper", "--batch-size", "8", "--split", "none", "--device", "cpu", "--json"]


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scan")
    write_scan(folder / "scan.cxi", twin("sim-26id", 1, lines=slice(0, 4), columns=slice(0, 8), workers=1))
    return folder / "scan.cxi"


def start(scan_file, output, *options):
    command = [sys.executable, "-m", "ptychow", "train", scan_file, "--output", output, *OPTIONS, *options]
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def finish(process):
    shown, complaint = process.communicate(timeout=300)
    assert process.returncode == 0, complaint
    return json.loads(shown)


def weights(path):
    return Model.load(path).network.state_dict()


@pytest.mark.slow
def test_two_processes_follow_one_and_survive_a_kill(scan_file, tmp_path):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    # Adam turns rounding of gradients near 0 into steps of the whole rate; 12 steps of other gradients would differ by
    # tens of times what is allowed here.
    run = ("--network", "ptychonn", "--epochs", "3", "--learning-rate", "3e-5")
    alone = finish(start(scan_file, one, *run))

    process = start(scan_file, two, *run, "--devices", "2")
    checkpoint = two.with_name("two_checkpoint.safetensors")
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    process.communicate()
    if not two.exists():  # killed after its first epoch, as it should be
        process = start(scan_file, two, *run, "--devices", "2", "--resume")
        together = finish(process)
        assert together["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-5)
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(two)[name], value, rtol=0, atol=1e-5)
    assert not checkpoint.exists()


def test_slurm_is_understood():
    # What the script of `sbatch --ntasks 4` sees before any srun, and a task of one process.
    script = {"SLURM_NTASKS": "4", "SLURM_NPROCS": "4", "SLURM_PROCID": "0", "SLURM_NNODES": "2"}
    for plain in (script, {**script, "SLURM_STEP_NUM_TASKS": "1"}):
        adopt_slurm(plain)
        assert "RANK" not in plain
    step = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}
    tasks = {**step, "MASTER_ADDR": "n1"}
    adopt_slurm(tasks)
    assert (tasks["RANK"], tasks["WORLD_SIZE"], tasks["LOCAL_RANK"]) == ("3", "4", "1")
    torchrun = {**tasks, "RANK": "7", "WORLD_SIZE": "8"}
    adopt_slurm(torchrun)
    assert torchrun["RANK"] == "7"
    with pytest.raises(InputError, match="MASTER_ADDR"):
        adopt_slurm(step)


def test_several_machines_need_a_meeting_and_shares_must_be_equal(monkeypatch):
    with pytest.raises(InputError, match="--meeting"):
        launch(["train"], 2, nodes=2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    require_equal_shares(8, "batch_size")
    with pytest.raises(InputError, match="multiple of 2"):
        require_equal_shares(9, "batch_size")
