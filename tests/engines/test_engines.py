"""Every engine in every precision gives the patches of the network as it was trained."""

from types import SimpleNamespace

import numpy as np
import pytest
from test_fold import as_trained

from ptychow import engines
from ptychow.engines import ENGINES, open_engine
from ptychow.engines.accuracy import ASSUMED_ERROR, own_error, phase_cost, require_accuracy, simulated_inputs
from ptychow.engines.torch_engine import TorchEngine
from ptychow.errors import InputError, MissingExtraError, PtychoWError
from ptychow.model import Model
from ptychow.shipped import SHIPPED

# Largest difference of a patch pixel whose amplitude is at most 1, of untrained networks with unruly norms.
TOLERANCE = {"fp32": 2e-5, "bf16": 0.05, "int8": 0.2}
KINDS = [
    (engine, precision)
    for engine, spec in ENGINES.items()
    if not (spec.missing() or spec.compiles)
    for precision in spec.precisions
]


def is_refused(engine, precision):
    """Whether this processor lacks what OpenVINO wants for it."""
    if (engine, precision) != ("openvino", "bf16"):
        return False
    import openvino

    return "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def model_of(network, size=64):
    """As much of a Model as engines look at."""
    card = SimpleNamespace(amplitude_scale=1.25, metrics={}, network="test", settings=network.settings)
    return SimpleNamespace(network=network, card=card, patch_size=size, probe=None)


@pytest.fixture(scope="module", params=["w3", "ptychonn"])
def case(request):
    model = model_of(as_trained(request.param))
    inputs = np.random.default_rng(0).normal(size=(35, 1, 64, 64)).astype(np.float32)
    return model, inputs, TorchEngine(model, "cpu").predict(inputs)


@pytest.mark.parametrize(("engine", "precision"), KINDS)
def test_all_engines_agree_with_eager_fp32(engine, precision, case, monkeypatch):
    model, inputs, expected = case
    monkeypatch.setattr("ptychow.engines.accuracy.LIMIT", np.inf)  # untrained networks have no phase error to add to
    if is_refused(engine, precision):
        with pytest.raises(InputError, match="precision: not on this CPU; found bf16, expected fp32 or int8"):
            open_engine(model, engine, precision, "cpu", threads=1, batch=16, inputs=inputs)
        return
    opened = open_engine(model, engine, precision, "cpu", threads=1, batch=16, inputs=inputs)
    assert (opened.name, opened.precision, opened.device) == (engine, precision, "cpu")
    assert np.abs(expected - expected.mean(axis=0)).max() > 0.1  # else anything would agree
    # Whatever is asked for: more than a chunk, one frame, none.
    for count in (35, 1, 0):
        found = opened.predict(inputs[:count])
        assert found.shape == (count, 64, 64) and found.dtype == np.complex64
        np.testing.assert_allclose(found, expected[:count], rtol=0, atol=1.25 * TOLERANCE[precision])


@pytest.mark.parametrize(
    "engine", [engine for engine, spec in ENGINES.items() if not (spec.missing() or spec.compiles)]
)
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_other_sizes_change_nothing(engine, threads):
    model = model_of(as_trained("w3"), size=32)
    inputs = np.random.default_rng(0).normal(size=(90, 1, 32, 32)).astype(np.float32)
    found = open_engine(model, engine, device="cpu", threads=threads).predict(inputs)
    np.testing.assert_allclose(found, TorchEngine(model, "cpu").predict(inputs), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(bool(ENGINES["torch-compiled"].missing()), reason="no C++ compiler")
def test_the_compiled_engine_agrees_too(trained, scan):
    inputs = trained.model.card.preparation.apply(scan.frames[:10])
    found = open_engine(trained.model, "torch-compiled", device="cpu", batch=4).predict(inputs)
    np.testing.assert_allclose(found, TorchEngine(trained.model, "cpu").predict(inputs), rtol=0, atol=1e-4)


def test_what_does_not_exist_is_refused(trained):
    with pytest.raises(InputError, match=r"unknown engine.*found abacus, expected auto, torch"):
        open_engine(trained.model, "abacus")
    with pytest.raises(InputError, match=r"not a precision of torch.*found int8"):
        open_engine(trained.model, "torch", "int8")
    with pytest.raises(InputError, match="device: not available here"):
        open_engine(trained.model, "openvino", device="cuda")


def test_what_is_not_installed_names_the_pip_line(trained, monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda library: None)
    with pytest.raises(MissingExtraError, match=r"openvino needs .*'\.\[fast\]'"):
        open_engine(trained.model, "openvino")
    monkeypatch.setattr(engines, "compiler", lambda: None)
    with pytest.raises(PtychoWError, match="torch-compiled needs a C\\+\\+ compiler"):
        open_engine(trained.model, "torch-compiled")


def test_models_that_ship_say_their_own_error():
    errors = {name: own_error(Model.load(name)) for name in SHIPPED if name.endswith("-26id-64")}
    assert len(errors) == 3 and ASSUMED_ERROR not in errors.values()
    assert all(0.005 < error < 0.2 for error in errors.values())


def test_int8_that_costs_too_much_is_refused_with_the_number(trained, monkeypatch):
    monkeypatch.setattr("ptychow.engines.accuracy.ASSUMED_ERROR", 1e-9)
    with pytest.raises(PtychoWError, match=r"int8 in ONNX Runtime would add .*% to this Model's phase error"):
        open_engine(trained.model, "onnxruntime", "int8", "cpu")


def test_the_cost_is_the_part_added_to_the_models_own_error(trained):
    inputs = simulated_inputs(trained.model, 16)
    reference = TorchEngine(trained.model, "cpu").predict(inputs)
    assert phase_cost(trained.model, reference, reference) < 1e-9
    # One constant phase a patch is nobody's error; noise is, and a Model that is worse itself suffers less from it.
    assert phase_cost(trained.model, reference * np.exp(0.5j).astype(np.complex64), reference) < 1e-6
    noise = np.random.default_rng(0).normal(scale=0.02, size=reference.shape)
    noisy = (reference * np.exp(1j * noise)).astype(np.complex64)
    cost = phase_cost(trained.model, noisy, reference)
    metrics = {"patches": {"weighted_phase_unexplained_variance": 0.2}}
    worse = Model(
        trained.model.card.model_copy(update={"metrics": metrics}),
        trained.model.network,
        trained.model.probe,
        trained.model.mean_pattern,
    )
    np.testing.assert_allclose(phase_cost(worse, noisy, reference), cost / 10, rtol=1e-6)
    # A metric that was no number is stored as null: the Model's own error is then not known.
    worse.card = worse.card.model_copy(update={"metrics": {"patches": dict.fromkeys(metrics["patches"])}})
    assert phase_cost(worse, noisy, reference) == cost
    assert phase_cost(trained.model, np.full_like(reference, np.nan), reference) == np.inf
    require_accuracy("it", 0.05)
    with pytest.raises(PtychoWError, match=r"add 6\.0%"):
        require_accuracy("it", 0.06)


def test_simulated_inputs_look_like_those_trained_on(trained, scan):
    found = simulated_inputs(trained.model, 40)
    real = trained.model.card.preparation.apply(scan.frames)
    assert found.shape == (40, 1, 32, 32) and found.dtype == np.float32
    assert np.corrcoef(found.mean(axis=0).ravel(), real.mean(axis=0).ravel())[0, 1] > 0.8 or (
        trained.model.card.preparation.mean_input is not None
    )
    assert 0.3 < found.std() / real.std() < 3
