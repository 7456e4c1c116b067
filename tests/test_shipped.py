"""Models that ship: found by name and alias, small, complete, and behind files that exist."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ptychow.errors import InputError
from ptychow.model import Model
from ptychow.shipped import FOLDER, SHIPPED, Shipped, model_file, names


def test_all_together_are_small():
    assert sum(model_file(name).stat().st_size for name in SHIPPED) < 20 * 2**20
    assert {path.stem for path in FOLDER.glob("*.safetensors")} == set(SHIPPED)


@pytest.mark.parametrize("name", names())
def test_every_name_loads_and_predicts(name):
    model = Model.load(name)
    size = model.card.frame_shape
    inputs = model.card.preparation.apply(np.full((1, *size), 100, np.uint16))
    assert inputs.shape[2:] == (model.patch_size, model.patch_size)
    assert model.card.metrics and model.card.data, "a card without metrics or data cannot be trusted"
    assert model.probe is not None


def test_a_file_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w3").write_text("mine")
    assert model_file("w3").read_text() == "mine"


def test_what_is_neither_file_nor_name_is_refused():
    with pytest.raises(InputError, match="no such Model file") as caught:
        model_file("w9")
    assert all(name in str(caught.value) for name in names())


def test_command_lists_shows_and_copies(ptychow, tmp_path):
    code, shown, _ = ptychow("weights")
    assert code == 0 and all(name in shown for name in SHIPPED)
    for name in SHIPPED:
        code, shown, _ = ptychow("weights", name, "--output", str(tmp_path))
        assert code == 0 and len(shown.splitlines()) < 15
        for words in (
            "made for",
            "energy" if name.startswith("wc") else "keV",
            "trained",
            "error",
            "counts",
            "licence",
        ):
            assert words in shown
        assert "not measured" not in shown.split("counts")[0]
        assert (tmp_path / f"{name}.safetensors").read_bytes() == model_file(name).read_bytes()
        code, shown, _ = ptychow("weights", name, "--json")
        assert code == 0 and "metrics" in json.loads(shown)
    assert ptychow("weights", "w9")[0] == 2


def test_one_model_that_cannot_be_read_does_not_hide_the_others(ptychow, monkeypatch):
    monkeypatch.setitem(SHIPPED, "broken", Shipped("nothing", "none"))
    code, shown, complaint = ptychow("weights")
    assert code == 0 and "w3-26id-64" in shown and complaint.startswith("warning: ") and "broken" in complaint


def test_a_model_is_not_copied_over_a_scan(ptychow, scan_file, tmp_path):
    before = scan_file.read_bytes()
    code, _, complaint = ptychow("weights", "w3", "--output", scan_file)
    assert code == 2 and "not a Model's name" in complaint and scan_file.read_bytes() == before
