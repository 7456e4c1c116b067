"""The fastest engine is measured once, remembered, and never one that costs accuracy."""

import json

import numpy as np
import pytest
import torch

from ptychow.engines import choice, open_engine
from ptychow.engines.choice import Candidate, choose, remembered
from ptychow.engines.torch_engine import TorchEngine
from ptychow.errors import PtychoWError
from ptychow.model import Model


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PTYCHOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "SECONDS", 0.01)
    return tmp_path / "cache" / "engines"


def test_it_is_measured_once_and_remembered(trained, own_cache, monkeypatch):
    first = choose(trained.model, device="cpu", threads=1, batch=16)
    tried = {(candidate.engine, candidate.precision) for candidate in first.candidates}
    assert {("torch", "fp32"), ("torch", "bf16")} <= tried and ("torch-compiled", "fp32") not in tried
    fastest = max((c for c in first.candidates if c.problem is None), key=lambda c: c.rate)
    assert (first.engine, first.precision) == (fastest.engine, fastest.precision)
    assert [file.name[:6] for file in own_cache.iterdir()] == ["w3-32-"]
    assert remembered() == [first]
    monkeypatch.setattr(choice, "_measure", None)
    assert choose(trained.model, device="cpu", threads=1, batch=16) == first
    opened = open_engine(trained.model, "auto", device="cpu", threads=1, batch=16)
    assert (opened.name, opened.precision) == (first.engine, first.precision)


def test_other_weights_threads_or_batches_are_another_choice(trained, own_cache, monkeypatch):
    monkeypatch.setattr(choice, "_measure", lambda model, engine, precision, *_: Candidate(engine, precision, 1.0, 0.0))
    choose(trained.model, "fp32", "cpu", threads=1, batch=16)
    choose(trained.model, "fp32", "cpu", threads=2, batch=16)
    choose(trained.model, "fp32", "cpu", threads=1, batch=17)
    choose(trained.model, None, "cpu", threads=1, batch=16)
    assert len(remembered()) == 4
    card = trained.model.card
    from ptychow.networks import build

    torch.manual_seed(5)
    other = Model(card, build("w3", **card.settings), trained.model.probe, trained.model.mean_pattern)
    choose(other, "fp32", "cpu", threads=1, batch=16)
    assert len(remembered()) == 5


def test_a_damaged_memory_is_measured_again(trained, own_cache, monkeypatch):
    monkeypatch.setattr(choice, "_measure", lambda model, engine, precision, *_: Candidate(engine, precision, 1.0, 0.0))
    chosen = choose(trained.model, "fp32", "cpu", threads=1, batch=4)
    (file,) = own_cache.iterdir()
    for damage in ("", "{}", "[1]", json.dumps({"engine": "abacus"})):
        file.write_text(damage)
        assert remembered() == []
        assert choose(trained.model, "fp32", "cpu", threads=1, batch=4).key == chosen.key


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(trained, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PTYCHOW_CACHE", str(tmp_path / "file"))
    assert choose(trained.model, "fp32", "cpu", threads=1, batch=4).precision == "fp32"


def test_an_engine_that_costs_accuracy_is_not_chosen_however_fast(trained, monkeypatch):
    honest = choice.open_engine

    class Hasty:
        name, precision, device = "torch", "bf16", "cpu"

        def predict(self, inputs):
            return np.ones((len(inputs), 32, 32), np.complex64)

    monkeypatch.setattr(
        choice,
        "open_engine",
        lambda model, engine, precision, *rest: (
            honest(model, engine, precision, *rest) if precision == "fp32" else Hasty()
        ),
    )
    found = choose(trained.model, None, "cpu", threads=1, batch=8)
    assert found.precision == "fp32"
    problems = [candidate.problem for candidate in found.candidates if candidate.precision != "fp32"]
    assert problems and all("to the phase error" in problem for problem in problems)
    with pytest.raises(PtychoWError, match="no engine here runs this Model in bf16"):
        choose(trained.model, "bf16", "cpu", threads=1, batch=8)


def test_what_was_chosen_gives_the_models_patches(trained, scan):
    inputs = trained.model.card.preparation.apply(scan.frames[:20])
    found = open_engine(trained.model, "auto", device="cpu", threads=1, batch=8).predict(inputs)
    np.testing.assert_allclose(found, TorchEngine(trained.model, "cpu").predict(inputs), atol=0.05)
