"""`ptychow demo`, made small: what it writes, and that it fails where the network has not learnt."""

import json

import pytest

from ptychow.cli import demo


@pytest.fixture
def small_demo(monkeypatch):
    monkeypatch.setattr(demo, "TRAINING_LINES", slice(0, 6))
    monkeypatch.setattr(demo, "TEST_LINES", slice(28, 31))
    monkeypatch.setattr(demo, "COLUMNS", slice(0, 6))


def test_the_demos_lines_share_no_pixel():
    assert demo.TEST_LINES.start - (demo.TRAINING_LINES.stop - 1) >= 22


def test_writes_picture_object_model_and_metrics(small_demo, tmp_path, ptychow, monkeypatch):
    monkeypatch.setattr(demo, "WORST_ACCEPTED", 1e9)
    code, shown, complaint = ptychow("demo", "--epochs", 1, "--output", tmp_path / "d", "--device", "cpu", "--json")
    assert code == 0 and complaint == ""
    summary = json.loads(shown)
    names = {"reconstruction.png", "reconstruction.cxi", "w3.safetensors", "metrics.json"}
    assert {item.name for item in (tmp_path / "d").iterdir()} == names
    assert json.loads((tmp_path / "d" / "metrics.json").read_text())["frames"] == 4 * 6  # lines 27 to 30
    assert len(summary["wrote"]) == 4 and "share no object pixel" in summary["region"]


def test_the_shipped_model_draws_an_object_it_has_never_seen(tmp_path, ptychow):
    code, shown, complaint = ptychow("demo", "--instant", "--output", tmp_path / "d", "--device", "cpu", "--json")
    assert code == 0 and complaint == ""
    assert json.loads(shown)["stitched"]["phase_unexplained_variance"] < 0.1
    assert {item.name for item in (tmp_path / "d").iterdir()} == {
        "reconstruction.png",
        "reconstruction.cxi",
        "metrics.json",
    }


def test_epochs_mean_nothing_where_nothing_is_trained(tmp_path, ptychow):
    code, _, complaint = ptychow("demo", "--instant", "--epochs", 1, "--output", tmp_path / "d")
    assert code == 2 and "--epochs" in complaint and not (tmp_path / "d").exists()


def test_fails_where_the_network_has_not_learnt(small_demo, tmp_path, ptychow, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, shown, complaint = ptychow("demo", "--epochs", 1, "--device", "cpu", "--quiet")
    assert code == 1 and shown == "" and complaint.count("\n") == 1 and "above 0.25" in complaint
    assert (tmp_path / "ptychow-demo" / "metrics.json").is_file()


def test_a_folder_that_cannot_be_is_refused_before_any_work(tmp_path, ptychow, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("ptychow.optics.twins.twin", lambda *arguments, **options: pytest.fail("has begun"))
    code, _, complaint = ptychow("demo", "--output", tmp_path / "file")
    assert code == 1 and "is not a folder" in complaint and complaint.count("\n") == 1
