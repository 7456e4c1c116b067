"""Exported files hold the Model, and are checked when written."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychow.detector import Preparation
from ptychow.engines import export as export_module
from ptychow.engines.export import COUNT_TYPES, ENDINGS, export
from ptychow.engines.prepared import PreparedFrames
from ptychow.engines.torch_engine import TorchEngine
from ptychow.errors import InputError, MissingExtraError, PtychoWError
from ptychow.model import ModelCard
from ptychow.orientation import Orientation

onnxruntime = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")


def runner(path, to):
    """inputs -> (amplitude, phase), with the format's own library alone."""
    if to == "onnx":
        session = onnxruntime.InferenceSession(path)
        return lambda frames: session.run(None, {session.get_inputs()[0].name: frames})
    if to == "openvino":
        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda frames: list(compiled([frames]).values())
    program = torch.export.load(path).module()
    return lambda frames: [part.detach().numpy() for part in program(torch.from_numpy(frames))]


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("to", ENDINGS)
def test_the_file_is_the_model(to, batch, trained, scan, tmp_path):
    path = tmp_path / f"model{ENDINGS[to]}"
    found = export(trained.model, path, to, batch=batch)
    assert found.difference < 1e-5 and all(file.is_file() for file in found.files)
    assert found.input_shape == (batch or "batch", 1, 32, 32) and found.input_type == "float32"
    run = runner(path, to)
    for count in (3,) if batch else (1, 20):
        inputs = trained.model.card.preparation.apply(scan.frames[:count])
        amplitude, phase = run(inputs)
        expected = TorchEngine(trained.model, "cpu").predict(inputs)
        np.testing.assert_allclose(amplitude[:, 0] * np.exp(1j * phase[:, 0]), expected, atol=1e-5)


@pytest.mark.parametrize("counts", COUNT_TYPES)
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_with_the_preparation_inside_it_takes_raw_counts(to, counts, trained, scan, tmp_path):
    path = tmp_path / f"model{ENDINGS[to]}"
    found = export(trained.model, path, to, preparation_inside=True, counts=counts)
    assert (found.input, found.input_shape, found.input_type) == ("counts", ("batch", 32, 32), counts)
    amplitude, phase = runner(path, to)(scan.frames[:7].astype(counts))
    inputs = trained.model.card.preparation.apply(scan.frames[:7])
    expected = TorchEngine(trained.model, "cpu").predict(inputs)
    np.testing.assert_allclose(amplitude[:, 0] * np.exp(1j * phase[:, 0]), expected, atol=1e-5)


def test_the_onnx_file_carries_the_contract(trained, tmp_path):
    export(trained.model, tmp_path / "model.onnx")
    metadata = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    card = json.loads(metadata["ptychow"])
    assert Preparation.model_validate(card["preparation"]) == trained.model.card.preparation
    assert card["gauge"] == trained.model.card.gauge and card["frame_shape"] == [32, 32]
    assert set(card) == set(ModelCard.model_fields) - {"data", "recipe", "training"}
    assert json.loads(metadata["input"]) == ["patterns", "float32", ["batch", 1, 32, 32]]


@settings(max_examples=25, deadline=None)
@given(
    orientation=st.sampled_from(list(Orientation)),
    crop=st.sampled_from([None, 16, 20]),
    binning=st.sampled_from([1, 2]),
    resample=st.sampled_from([None, 8]),
    masked=st.sampled_from([0, 5, 60]),
    saturation=st.sampled_from([None, 40.0]),
    threshold=st.sampled_from([0.0, 3.0]),
    transform=st.sampled_from(["sqrt", "raw"]),
    standardised=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_prepared_frames_are_the_preparations(
    orientation, crop, binning, resample, masked, saturation, threshold, transform, standardised, seed
):
    rng = np.random.default_rng(seed)
    mask = np.ones((24, 24), bool)
    mask.flat[rng.permutation(24 * 24)[:masked]] = False
    preparation = Preparation(
        centre=None if crop is None else (13, 12 if crop == 16 else 13),
        crop=crop,
        bin=binning,
        resample=resample,
        orientation=orientation,
        mask=mask if masked else None,
        saturation=saturation,
        threshold=threshold,
        transform=transform,
        scale="fixed",
        scale_value=1.7,
    )
    size = preparation.output_size((24, 24))
    if standardised:
        preparation = preparation.replace(mean_input=rng.random(size).astype(np.float32), deviation=0.6)
    frames = rng.poisson(20, (3, 24, 24)).astype(np.uint16)
    with torch.no_grad():
        found = PreparedFrames(preparation, (24, 24))(torch.from_numpy(frames.astype(np.float32)))
    np.testing.assert_allclose(found.numpy(), preparation.apply(frames), rtol=1e-4, atol=1e-4)


def test_marked_pixels_count_as_nothing_in_the_graph():
    frames = np.full((1, 8, 8), 9, np.uint16)
    frames[0, 3, 4] = 65535
    prepared = PreparedFrames(Preparation(markers=(65535,), scale="none"), (8, 8))
    found = prepared(torch.from_numpy(frames.astype(np.float32)))[0, 0]
    assert found[3, 4] == 0 and (found > 0).sum() == 63


def test_pixels_are_chosen_exactly_in_the_largest_frames():
    # Beyond 2**24 pixels their numbers are no float32.
    prepared = PreparedFrames(Preparation(centre=(4196, 4196), crop=8, orientation=Orientation.FLIP_ROWS), (4200, 4200))
    numbers = np.arange(4200 * 4200).reshape(4200, 4200)[4192:, 4192:]
    expected = Orientation.FLIP_ROWS.apply_about_zero_frequency(numbers)
    np.testing.assert_array_equal(prepared.pixels.reshape(8, 8), expected)


@pytest.mark.parametrize("to", ENDINGS)
def test_a_file_that_is_not_the_model_is_not_left(to, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "to_patches", lambda amplitude, phase: 1.01 * amplitude[:, 0] + 0j)
    with pytest.raises(PtychoWError, match=r"model\.\w+: gives patches that differ"):
        export(trained.model, tmp_path / f"model{ENDINGS[to]}", to)
    assert not list(tmp_path.iterdir())


def test_weights_replace_only_weights(trained, tmp_path):
    (tmp_path / "model.bin").write_text("precious")
    with pytest.raises(InputError, match=r"model\.bin: output: would be overwritten"):
        export(trained.model, tmp_path / "model.xml", "openvino")
    assert (tmp_path / "model.bin").read_text() == "precious"
    export(trained.model, tmp_path / "other.xml", "openvino")
    assert export(trained.model, tmp_path / "other.xml", "openvino").difference < 1e-5


def test_what_makes_no_sense_is_refused(trained, tmp_path, monkeypatch):
    for change, words in (
        ({"to": "tflite"}, "unknown format"),
        ({"to": "openvino"}, r"another ending.*found .onnx, expected .xml"),
        ({"counts": "int8"}, "unknown counts"),
    ):
        with pytest.raises(InputError, match=words):
            export(trained.model, tmp_path / "model.onnx", **change)
    with pytest.raises(InputError, match="not in a PyTorch file"):
        export(trained.model, tmp_path / "model.pt2", "torch", preparation_inside=True)
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"'\.\[fast\]'"):
        export(trained.model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_amplitudes_come_in_the_labels_units(trained, tmp_path):
    card = trained.model.card.model_copy(update={"amplitude_scale": 3.0})
    model = type(trained.model)(card, trained.model.network, trained.model.probe, trained.model.mean_pattern)
    export(trained.model, tmp_path / "plain.onnx")
    export(model, tmp_path / "scaled.onnx")
    x = np.random.default_rng(0).normal(size=(2, 1, 32, 32)).astype(np.float32)
    plain, scaled = (runner(tmp_path / f"{name}.onnx", "onnx")(x) for name in ("plain", "scaled"))
    np.testing.assert_allclose(scaled[0], 3 * plain[0], rtol=1e-5)
    np.testing.assert_array_equal(scaled[1], plain[1])
