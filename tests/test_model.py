"""The Model file is a contract: round trips to the bit, refusals in one line, and what differs said in words."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import TINY, small_scan
from ptychow.detector_fit import fit_preparation
from ptychow.engines.torch_engine import TorchEngine
from ptychow.errors import InputError, MismatchError
from ptychow.model import Model, ModelCard
from ptychow.networks import NETWORKS, build
from ptychow.optics.beam import gaussian_beam
from ptychow.orientation import Orientation
from ptychow.scan import Geometry
from ptychow.tensor_files import read_tensors, write_tensors
from ptychow.training import recipe_named, train


def rewritten(path, change):
    """The Model file with its card's JSON changed by `change(card)`."""
    tensors, texts = read_tensors(path, "Model file")
    card = json.loads(texts["ptychow"])
    change(card)
    write_tensors(path, tensors, {"ptychow": json.dumps(card)})


@pytest.mark.parametrize("kind", ["trained", "paper_trained"])
def test_a_file_predicts_to_the_bit_what_the_model_predicted(kind, scan, tmp_path, request):
    model = request.getfixturevalue(kind).model
    model.save(tmp_path / "m.safetensors")
    loaded = Model.load(tmp_path / "m.safetensors")
    assert loaded.card == model.card
    np.testing.assert_array_equal(loaded.mean_pattern, model.mean_pattern)
    np.testing.assert_array_equal(loaded.probe, model.probe)
    inputs = model.prepare_for(scan).apply(scan.frames[:16])
    np.testing.assert_array_equal(loaded.prepare_for(scan).apply(scan.frames[:16]), inputs)
    np.testing.assert_array_equal(TorchEngine(loaded, "cpu").predict(inputs), TorchEngine(model, "cpu").predict(inputs))
    assert not loaded.network.training and loaded.check(scan) == model.check(scan)


def test_a_model_without_probe_is_kept_without(paper_trained, tmp_path):
    model = Model(paper_trained.model.card, paper_trained.model.network, None, paper_trained.model.mean_pattern)
    model.save(tmp_path / "m.safetensors")
    assert Model.load(tmp_path / "m.safetensors").probe is None


def test_the_card_has_no_secrets_from_json(trained):
    assert ModelCard.model_validate_json(trained.model.card.model_dump_json()) == trained.model.card


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_anywhere_is_one_clear_error_or_harmless(model_bytes, data, tmp_path_factory):
    content = bytearray(model_bytes)
    if data.draw(st.booleans(), label="truncate"):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        # The header, where everything but numbers is, lies in the first bytes.
        for place in data.draw(st.lists(st.integers(0, 6000), min_size=1, max_size=4)):
            content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "m.safetensors"
    path.write_bytes(content)
    try:
        Model.load(path)
    except InputError as error:
        assert "m.safetensors" in str(error)


@pytest.fixture(scope="module")
def model_bytes(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    trained.model.save(path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.update(format=2), r"format.*another version|another version.*1"),
        (lambda card: card.update(network="w9"), "m.safetensors: network: unknown network; found w9"),
        (lambda card: card["settings"].update(dims=[16, 16, 16, 32]), "weights do not fit the network"),
        (lambda card: card["settings"].update(dims=3), "m.safetensors: dims: no such setting of w3; found 3"),
        (lambda card: card["settings"].update(colour="red"), "m.safetensors: colour: unknown setting"),
        (lambda card: card.pop("preparation"), "preparation"),
        (lambda card: card["preparation"].update(bin=0), "bin"),
        (lambda card: card.update(extra=1), "extra"),
    ],
)
def test_cards_that_do_not_fit_are_refused_by_name(change, message, trained, tmp_path):
    path = tmp_path / "m.safetensors"
    trained.model.save(path)
    rewritten(path, change)
    with pytest.raises(InputError, match=message) as caught:
        Model.load(path)
    assert "m.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_loading_takes_no_memory_for_what_only_the_settings_name(trained, tmp_path):
    path = tmp_path / "m.safetensors"
    trained.model.save(path)
    rewritten(path, lambda card: card["settings"].update(dims=[2**20] * 4))  # some terabytes of weights
    with pytest.raises(InputError, match="weights do not fit the network"):
        Model.load(path)


@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_comes_back_and_no_random_number_is_drawn(name, trained, tmp_path):
    network = build(name).eval()
    card = trained.model.card.model_copy(update={"network": name, "settings": network.settings})
    Model(card, network, None, trained.model.mean_pattern).save(tmp_path / "m.safetensors")
    state = torch.get_rng_state()
    loaded = Model.load(tmp_path / "m.safetensors")
    assert torch.equal(torch.get_rng_state(), state)
    patterns = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        for found, expected in zip(loaded.network(patterns), network(patterns), strict=True):
            assert torch.equal(found, expected)
    assert all(parameter.requires_grad for parameter in loaded.network.parameters())


def test_foreign_files_are_refused(trained, tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(InputError, match="no such Model file"):
        Model.load(path)
    write_tensors(path, {"a": torch.zeros(2)}, {})
    with pytest.raises(InputError, match="no PtychoW Model"):
        Model.load(path)
    torch.save(trained.model.network, path)  # a pickle
    with pytest.raises(InputError, match="not a Model file"):
        Model.load(path)
    trained.model.save(path)
    tensors, texts = read_tensors(path, "Model file")
    write_tensors(path, {**tensors, "mean_pattern": torch.zeros(32)}, texts)
    with pytest.raises(InputError, match="mean_pattern, probe: damaged"):
        Model.load(path)


def test_the_scan_it_was_made_for_passes_without_a_word(trained, scan):
    assert trained.model.check(scan) == []


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_another_frame_size_is_refused_and_says_how_to_get_there(masked, force, trained, tmp_path):
    model = trained.model
    if masked:
        mask = np.ones((32, 32), bool)
        mask[3, 3] = False
        card = model.card.model_copy(update={"preparation": model.card.preparation.replace(mask=mask)})
        model = Model(card, model.network, model.probe, model.mean_pattern)
    model.save(tmp_path / "mine.safetensors")
    model = Model.load(tmp_path / "mine.safetensors")
    large = replace(small_scan(lines=2), frames=np.ones((8, 64, 64), np.uint16), probe=None)
    with pytest.raises(MismatchError) as refused:
        model.check(large, force)
    assert str(refused.value) == (
        "small-0.cxi: frames of 64 x 64 pixels, but the Model mine was made for 32 x 32. Bring them there "
        "(ptychow prepare FILE --crop 32, or --crop 64 --bin 2; with --centre ROW,COLUMN "
        "where the beam is not in the middle), or use a Model made for such frames"
    )
    with pytest.raises(MismatchError, match=r"made for 32 x 32\. Use a Model made for such frames"):
        model.check(replace(large, frames=large.frames[:, :16, :16]), force)


def test_frames_that_the_preparation_crops_all_the_same_need_force(trained):
    model = trained.model
    card = model.card.model_copy(update={"preparation": model.card.preparation.replace(crop=32)})
    model = Model(card, model.network, model.probe, model.mean_pattern)
    large = replace(small_scan(lines=2), frames=np.ones((8, 64, 64), np.uint16), probe=None)
    with pytest.raises(MismatchError, match=r"made for 32 x 32; .*or --force"):
        model.check(large)
    assert "made for 32 x 32" in model.check(large, force=True)[0]


@pytest.mark.parametrize(("size", "refused"), [(10.1e-9, False), (10.5e-9, True), (9e-9, True)])
def test_another_pixel_size_is_refused_and_force_overrides(size, refused, trained, scan):
    other = replace(scan, geometry=Geometry(pixel_size=size))
    if not refused:
        assert trained.model.check(other) == []
        return
    with pytest.raises(MismatchError, match=r"object pixel of .* nm, but the Model was made for 10 nm.*--force"):
        trained.model.check(other)
    assert "made for 10 nm" in trained.model.check(other, force=True)[0]


def test_an_unknown_pixel_size_is_said(trained, scan):
    unknown = replace(scan, geometry=Geometry(), positions=scan.positions_px, position_unit="px")
    assert trained.model.check(unknown) == ["the scan's pixel size is unknown, not checked (--pixel-size-nm)"]
    card = trained.model.card.model_copy(update={"geometry": Geometry()})
    model = Model(card, trained.model.network, trained.model.probe, trained.model.mean_pattern, "mine")
    assert model.check(scan) == ["the Model mine does not know its pixel size: the scan's is not checked"]


@pytest.mark.parametrize(
    ("factor", "outcome"), [(1, ""), (3, ""), (5, "warns"), (1 / 5, "warns"), (18, "refuses"), (1 / 18, "refuses")]
)
def test_raw_counts_warn_beyond_four_and_refuse_beyond_sixteen(factor, outcome, paper_trained, scan):
    other = replace(scan, frames=(scan.frames * factor).astype(np.float32))
    if outcome == "refuses":
        with pytest.raises(MismatchError, match=r"times the counts per frame .* wrong beyond x16"):
            paper_trained.model.check(other)
        assert "wrong beyond x16" in paper_trained.model.check(other, force=True)[0]
    else:
        warnings = paper_trained.model.check(other)
        assert len(warnings) == bool(outcome) and all("have not been measured" in warning for warning in warnings)


def test_measured_count_limits_travel_in_the_card(paper_trained, scan):
    card = paper_trained.model.card.model_copy(update={"count_limits": (0.5, 2.0)})
    model = Model(card, paper_trained.model.network, paper_trained.model.probe, paper_trained.model.mean_pattern)
    assert model.check(scan) == []
    (warning,) = model.check(replace(scan, frames=(scan.frames * 3.0).astype(np.float32)))
    assert "known to double outside 0.5 to 2" in warning


def test_a_scaled_model_warns_outside_its_counts(trained, scan):
    def check(factor):
        return trained.model.check(replace(scan, frames=(scan.frames * factor).astype(np.float32)))

    assert check(3) == check(1 / 3) == []
    assert "count rate: 19.9 times" in check(20)[0] and "limits have not been measured" in check(20)[0]


@pytest.mark.parametrize("orientation", [o for o in Orientation if o is not Orientation.IDENTITY])
def test_another_orientation_is_named(orientation, trained, scan):
    # A pattern in one of the eight sectors of 45 degrees: no two orientations overlap.
    rows, columns = np.indices((32, 32)) - 16
    frames = scan.frames * ((rows > 0) & (columns > rows)) + 0.01
    model = Model(trained.model.card, trained.model.network, trained.model.probe, trained.model.mean_pattern)
    model.mean_pattern = model.prepare_for(scan).unstandardised().apply(frames)[:, 0].mean(axis=0)
    turned = replace(scan, frames=orientation.apply_about_zero_frequency(frames), probe=None)
    with pytest.raises(MismatchError, match=f"orientation: turned by {orientation.inverse}, patterns match"):
        model.check(turned)
    assert any("orientation: turned by" in warning for warning in model.check(turned, force=True))


def test_a_somewhat_different_pattern_is_a_warning(trained, scan):
    model = Model(trained.model.card, trained.model.network, trained.model.probe, trained.model.mean_pattern)
    other = np.abs(np.random.default_rng(0).normal(size=model.mean_pattern.shape)) * model.mean_pattern
    weights = np.linalg.norm(model.mean_pattern), np.linalg.norm(other)
    model.mean_pattern = (model.mean_pattern / weights[0] + 3 * other / weights[1]).astype(np.float32)
    assert any("mean pattern" in warning for warning in model.check(scan))


def test_another_probe_is_said(trained, scan):
    other = small_scan(3)
    moved = replace(other, probe=np.roll(other.probe, 9, axis=1))
    assert "probe intensity matches" in trained.model.check(moved)[0]
    # Of a scan that it was made from, the Model may have the better one.
    assert trained.model.check(replace(scan, probe=np.roll(scan.probe, 9, axis=1))) == []
    small = replace(other, probe=other.probe[:, 4:-4, 4:-4])
    assert "not of the frames' size: not checked" in trained.model.check(small)[0]


def test_a_probe_that_cannot_be_compared_is_no_obstacle(scan):
    narrow, recipe = replace(scan, probe=gaussian_beam(32, fwhm=4)[None]), recipe_named("paper", epochs=1)
    preparation = fit_preparation(narrow, bin=2, transform="raw", scale="none")
    binned = train(narrow, "w3", recipe, preparation=preparation, settings=TINY, split="none", device="cpu").model
    assert binned.probe is not None
    rough = replace(small_scan(3), probe=np.ones_like(scan.probe))
    said = binned.check(rough)
    assert any("the file's probe cannot be compared with the Model's" in words for words in said)


def test_an_unknown_scale_is_refused(trained, scan):
    with pytest.raises(InputError, match="scale: unknown; found Model, expected scan or model"):
        trained.model.prepare_for(scan, "Model")


def test_frames_of_zeros_are_refused(trained, scan):
    with pytest.raises(InputError, match=r"small-0.cxi: frames: the frames hold no counts"):
        trained.model.check(replace(scan, frames=0 * scan.frames))
