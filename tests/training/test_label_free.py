"""`calibrate`: a Model for an instrument, from one scan of it and no label."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import TINY
from ptychow.errors import InputError, PtychoWError
from ptychow.reconstruction import reconstruct
from ptychow.training import LABEL_FREE, calibrate

SHORT = LABEL_FREE.model_copy(update={"epochs": 3, "steps_per_epoch": 4, "batch_size": 8})
QUICK = {"settings": TINY, "device": "cpu"}


def test_so_many_minutes_go_on_as_they_began(scan, tmp_path):
    checkpoint = tmp_path / "c.safetensors"

    def stop(history):
        raise KeyboardInterrupt

    with pytest.raises(PtychoWError, match=r"interrupted after 1 of (\d+) epochs") as interrupted:
        calibrate(scan, "w3", SHORT, minutes=0.02, checkpoint=checkpoint, on_epoch=stop, **QUICK)
    epochs = int(str(interrupted.value).split(" of ")[1].split()[0])
    # Another time would fit another number of epochs.
    resumed = calibrate(scan, "w3", SHORT, minutes=0.001, checkpoint=checkpoint, resume=True, **QUICK)
    assert resumed.history.epochs == epochs


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda s: {}, {"seed": -1}, "seed: negative"),
        (lambda s: {"probe": s.probe[:, 8:24, 8:24]}, {}, "probe: of another size than the frames"),
    ],
)
def test_bad_input_is_named(change, options, message, scan):
    with pytest.raises(InputError, match=message):
        calibrate(replace(scan, **change(scan)), "w3", SHORT, **QUICK, **options)


@pytest.fixture(scope="module")
def calibrated(scan):
    return calibrate(scan, "w3", SHORT, **QUICK)


def test_the_scans_label_is_not_looked_at(scan, calibrated):
    blank = replace(scan.object, image=np.full_like(scan.object.image, np.nan))
    without = calibrate(replace(scan, object=None), "w3", SHORT, **QUICK)
    spoilt = calibrate(replace(scan, object=blank), "w3", SHORT, **QUICK)
    expected = calibrated.model.network.state_dict()
    for other in (without, spoilt):
        assert all(torch.equal(value, expected[name]) for name, value in other.model.network.state_dict().items())


def test_the_model_knows_its_scan_and_reconstructs_it(scan, calibrated):
    model = calibrated.model
    assert model.card.gauge == "constant-free" and model.card.training["steps"] == 12
    assert model.card.data[0].fingerprint == scan.fingerprint() and model.card.data[0].train == []
    assert model.card.data[0].labels.startswith("none")
    np.testing.assert_allclose(model.probe, scan.probe)
    result = reconstruct(scan, model, device="cpu")
    assert np.isfinite(result.image.image).all()
    expected = ("pixel size", "no better than an empty object")  # after so few steps
    assert all(any(words in warning for words in expected) for warning in result.warnings)


def test_it_learns(scan):
    long = SHORT.model_copy(update={"epochs": 5, "steps_per_epoch": 20})
    losses = calibrate(scan, "w3", long, **QUICK).history.train_loss
    assert losses[-1] < 0.8 * losses[0]


def test_an_interrupted_calibration_continues_to_the_same_model(scan, calibrated, tmp_path):
    checkpoint = tmp_path / "c.safetensors"

    def stop(history):
        if history.epochs == 2:
            raise KeyboardInterrupt

    with pytest.raises(PtychoWError, match="--resume goes on"):
        calibrate(scan, "w3", SHORT, checkpoint=checkpoint, on_epoch=stop, **QUICK)
    resumed = calibrate(scan, "w3", SHORT, checkpoint=checkpoint, resume=True, **QUICK)
    assert resumed.history.train_loss == calibrated.history.train_loss
    expected = calibrated.model.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.model.network.state_dict().items())
    with pytest.raises(InputError, match="belongs to another training"):
        brighter = replace(scan, probe=(scan.probe * 2).astype(np.complex64))
        calibrate(brighter, "w3", SHORT, checkpoint=checkpoint, resume=True, **QUICK)


def test_minutes_choose_the_number_of_steps(scan):
    trained = calibrate(scan, "w3", SHORT, minutes=0.05, **QUICK)
    assert trained.model.card.training["steps"] % 4 == 0
    # Three seconds were asked for; a busy machine may be several times off.
    assert 0.2 < sum(trained.history.seconds) < 30


def test_a_family_of_instruments_is_told_in_the_model(scan):
    trained = calibrate(scan, "w3", SHORT, instruments=[scan.probe, scan.probe * np.complex64(2)], **QUICK)
    assert "2 instruments" in trained.model.card.data[0].labels
    np.testing.assert_allclose(trained.model.probe, scan.probe)


def test_without_a_probe_it_says_where_to_get_one(unlabelled):
    with pytest.raises(InputError, match="--probe-epochs"):
        calibrate(unlabelled, "w3", SHORT, **QUICK)
