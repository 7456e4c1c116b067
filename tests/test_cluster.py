"""Many scans on a real local cluster: results, failures, a killed worker, and going on after a stop."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import numpy as np
import pytest

from ptychow.cluster import MANIFEST, _connect, _digest, reconstruct_scans
from ptychow.errors import InputError, PtychoWError
from ptychow.formats import write_scan
from ptychow.formats.cxi import read_object
from ptychow.optics.twins import twin
from ptychow.reconstruction import reconstruct
from ptychow.training import recipe_named, train

pytestmark = pytest.mark.slow
SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A folder of three small scans, a broken one, and a Model."""
    folder = tmp_path_factory.mktemp("scans")
    scan = None
    for seed in SEEDS:
        scan = twin("sim-26id", seed, lines=slice(0, 12, 3), columns=slice(0, 12, 3), workers=1)
        write_scan(folder / f"scan{seed}.cxi", scan)
    (folder / "broken.cxi").write_bytes((folder / "scan1.cxi").read_bytes()[:5000])
    model = train(scan, "w3", recipe_named("ptychow", epochs=1), validation=0, split="random", device="cpu").model
    model.save(folder / "model.safetensors")
    return folder, model


def files(folder):
    return sorted(folder.glob("*.cxi"))


def test_every_scan_is_reconstructed_and_failures_are_told(scans, tmp_path):
    folder, model = scans
    seen = []
    outcomes = reconstruct_scans(
        files(folder), folder / "model.safetensors", tmp_path, workers=2, on_outcome=seen.append
    )
    assert [outcome.file for outcome in outcomes] == files(folder) and len(seen) == len(SEEDS) + 1
    assert {outcome.file.stem: outcome.state for outcome in outcomes} == {
        "broken": "failed",
        **{f"scan{seed}": "done" for seed in SEEDS},
    }
    assert "broken.cxi" in next(outcome.problem for outcome in outcomes if outcome.state == "failed")
    mine = reconstruct(twin("sim-26id", 2, lines=slice(0, 12, 3), columns=slice(0, 12, 3), workers=1), model)
    np.testing.assert_allclose(read_object(tmp_path / "scan2.cxi").image, mine.image.image, atol=1e-4)

    # Again: what is done is kept, what failed is tried again, what has changed is done again.
    again = reconstruct_scans(
        files(folder), folder / "model.safetensors", tmp_path, workers=1, options={"batch_size": 64}
    )
    assert {outcome.state for outcome in again} == {"done", "failed"}, "another option is another result"
    kept = reconstruct_scans(
        files(folder), folder / "model.safetensors", tmp_path, workers=1, options={"batch_size": 64}
    )
    assert {outcome.file.stem: outcome.state for outcome in kept} == {
        "broken": "failed",
        **{f"scan{seed}": "kept" for seed in SEEDS},
    }
    assert set(json.loads((tmp_path / MANIFEST).read_text())) == {file.name for file in files(folder)}


def test_a_killed_worker_loses_nothing(scans, tmp_path, monkeypatch):
    folder, _ = scans
    workers = []

    def connect(stack, distributed, cluster, count):
        client = _connect(stack, distributed, cluster, count)
        workers.extend(client.run(os.getpid).values())
        # While the first scans are being read: the workers have just been given them.
        threading.Timer(0.3, os.kill, (workers[0], signal.SIGKILL)).start()
        return client

    monkeypatch.setattr("ptychow.cluster._connect", connect)
    good = [file for file in files(folder) if file.stem != "broken"]
    outcomes = reconstruct_scans(good, folder / "model.safetensors", tmp_path, workers=2)
    assert [outcome.state for outcome in outcomes] == ["done"] * len(good)
    assert all(read_object(outcome.output).image.any() for outcome in outcomes)
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(workers[0], 0)
            time.sleep(0.05)


def test_names_must_differ_and_nothing_is_overwritten(scans, tmp_path):
    folder, _ = scans
    file = folder / "scan1.cxi"
    with pytest.raises(InputError, match="one name"):
        reconstruct_scans([file, tmp_path / "scan1.h5"], folder / "model.safetensors", tmp_path)
    with pytest.raises(InputError, match="overwrite"):
        reconstruct_scans([file], folder / "model.safetensors", folder)


def test_another_file_of_positions_is_another_result(scans, tmp_path):
    folder, _ = scans
    table = tmp_path / "xy.csv"
    reading = {"mapping": {"positions_file": str(table)}}

    def digest(text):
        table.write_text(text)
        return _digest(folder / "scan1.cxi", folder / "model.safetensors", reading, {})

    first = digest("y_px,x_px\n1,2\n")
    assert digest("y_px,x_px\n1,2.5\n") != first


def test_an_address_where_nobody_answers(scans, tmp_path, monkeypatch):
    folder, _ = scans
    monkeypatch.setattr("ptychow.cluster.CONNECTING_SECONDS", 1)
    with pytest.raises(PtychoWError, match="no dask scheduler"):
        reconstruct_scans([folder / "scan1.cxi"], folder / "model.safetensors", tmp_path, cluster="tcp://127.0.0.1:9")


def test_command_prints_one_table_and_fails_where_a_scan_did(scans, tmp_path, ptychow):
    folder, _ = scans
    arguments = ("--model", folder / "model.safetensors", "--cluster", "local", "--workers", 1, "--output", tmp_path)
    code, shown, complaint = ptychow("reconstruct", folder / "*.cxi", *arguments)
    assert code == 1 and "1 of 4 scans could not be reconstructed; the first: broken.cxi" in complaint
    assert all(f"scan{seed}.cxi" in shown for seed in SEEDS) and "done" in shown
    # What explains the files reaches the workers: this contradicts them.
    code, shown, complaint = ptychow("reconstruct", folder / "scan1.cxi", *arguments, "--pixel-size-nm", 20)
    assert code == 1 and "failed" in shown and "pixel" in shown
    code, _, complaint = ptychow("reconstruct", folder / "none*.cxi", *arguments)
    assert code == 2 and "Quote the pattern" in complaint
