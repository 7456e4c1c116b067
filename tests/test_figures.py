"""Pictures: written whole or not at all, decodable, and showing what they were given."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread

from ptychow import figures
from ptychow.errors import InputError, PtychoWError
from ptychow.figures import (
    frc_figure,
    new_figure,
    object_figure,
    reconstruction_figure,
    robust_limits,
    save_figure,
    show_image,
    training_figure,
)
from ptychow.metrics import frc
from ptychow.scan import ObjectImage

SHAPE = (40, 56)


def sample(seed=0):
    rng = np.random.default_rng(seed)
    return (1 + 0.1 * rng.normal(size=SHAPE)) * np.exp(0.5j * rng.normal(size=SHAPE))


def history(epochs=5):
    return {
        "epoch": list(range(1, epochs + 1)),
        "train": np.geomspace(1, 0.1, epochs).tolist(),
        "validation": [None, 0.6, 0.4, 0.5, float("nan")],
        "learning_rate": [1e-3] * epochs,
    }


PROBE = np.exp(-((np.indices((24, 24)) - 12) ** 2).sum(axis=0) / 20)[None] * np.array([3, 1, 2])[:, None, None]

WRITERS = {
    "reconstruction": lambda path: reconstruction_figure(path, sample(), sample() * 1.1, pixel_size=1e-8, title="t"),
    "reconstruction alone": lambda path: reconstruction_figure(path, None, sample()),
    "object": lambda path: object_figure(path, ObjectImage(sample(), (3.0, -7.0), "test"), PROBE.astype(complex)),
    "object alone": lambda path: object_figure(path, ObjectImage(sample(), (0.0, 0.0), "test"), pixel_size=1e-8),
    "training": lambda path: training_figure(path, history()),
    "training without validation": lambda path: training_figure(path, {"epoch": [1, 2], "train": [1.0, 0.5]}),
    "frc": lambda path: frc_figure(path, {"w1": frc(sample(), sample() + 0.3 * sample(1))}, pixel_size=1e-8),
}


@pytest.mark.parametrize("name", WRITERS)
def test_writes_one_decodable_picture_with_something_on_it(name, tmp_path):
    path = tmp_path / "new" / "picture.png"
    WRITERS[name](path)
    picture = imread(path)[..., :3]
    assert min(picture.shape[:2]) > 200
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    assert 0.02 < (picture < 0.9).any(axis=2).mean() < 0.98
    assert [item.name for item in path.parent.iterdir()] == ["picture.png"]


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_left_where_writing_fails(name, tmp_path, monkeypatch):
    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FigureCanvasAgg, "print_png", full_disk)
    (tmp_path / "picture.png").write_text("the picture of before")
    with pytest.raises(PtychoWError, match=r"picture.png: cannot be written \(No space left on device\)"):
        WRITERS[name](tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_text() == "the picture of before"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_format_that_there_is_not_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(InputError, match=r"picture.cxi: no format for a picture; found .cxi, expected .*png"):
        WRITERS["reconstruction"](tmp_path / "picture.cxi")
    WRITERS["reconstruction"](tmp_path / "picture.PDF")
    assert (tmp_path / "picture.PDF").read_bytes().startswith(b"%PDF") and len(list(tmp_path.iterdir())) == 1


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, kept instead of written."""
    kept = []
    monkeypatch.setattr(figures, "save_figure", lambda path, figure, **_: kept.append(figure))
    return kept


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes if axes.images and axes.get_title()}


def test_lengths_are_pixels_where_the_pixel_size_is_unknown(drawn):
    for pixel_size in (None, 1e-9, 1e-7):
        object_figure("x.png", ObjectImage(sample(), (0.0, 0.0), "test"), pixel_size=pixel_size)
    labels = [panels(figure)["Object: phase"].get_xlabel() for figure in drawn]
    assert labels == ["x (object pixels)", "x (nm)", "x (µm)"]


def test_scale_and_origin(drawn):
    object_figure("x.png", ObjectImage(sample(), (10.0, 20.0), "test"), pixel_size=1e-7)
    left, right, bottom, top = panels(drawn[0])["Object: phase"].images[0].get_extent()
    assert (top, bottom) == pytest.approx((0.95, 0.95 + 0.1 * SHAPE[0]))
    assert (left, right) == pytest.approx((1.95, 1.95 + 0.1 * SHAPE[1]))


def test_truth_and_reconstruction_share_limits_and_the_error_is_symmetric(drawn):
    truth = sample()
    reconstruction_figure("x.png", truth, 1.2 * truth * np.exp(0.1j))
    shown = {title: axes.images[0] for title, axes in panels(drawn[0]).items()}
    for quantity in ("amplitude", "phase"):
        assert shown[f"Truth: {quantity}"].get_clim() == shown[f"Reconstruction: {quantity}"].get_clim()
    errors = {title: image for title, image in shown.items() if title.startswith("Error")}
    assert set(errors) == {
        f"Error: amplitude (rms {0.2 * np.sqrt((np.abs(truth) ** 2).mean()):.3g})",
        "Error: phase (rms 0.1 rad)",
    }
    for image in errors.values():
        low, high = image.get_clim()
        assert low == -high < 0


def test_only_the_region_is_drawn(drawn):
    region = np.zeros(SHAPE)
    region[5:20, 10:30] = 1
    region[6, 12] = 0
    reconstruction = sample()
    reconstruction[region == 0] = np.nan
    reconstruction_figure("x.png", sample(), reconstruction, region=region)
    image = panels(drawn[0])["Reconstruction: phase"].images[0].get_array()
    assert image.shape == (15, 20)
    assert image.mask.sum() == 1
    assert image.mask[1, 2]


def test_phases_are_drawn_about_their_mean_direction(drawn):
    truth = np.exp(1j * (np.pi + 0.3 * np.random.default_rng(0).normal(size=SHAPE)))
    reconstruction_figure("x.png", truth, truth)
    low, high = panels(drawn[0])["Truth: phase"].images[0].get_clim()
    assert -1.2 < low < high < 1.2


def test_probe_modes_come_strongest_first(drawn):
    object_figure("x.png", ObjectImage(sample(), (0.0, 0.0), "test"), PROBE.astype(complex))
    titles = [title for title in panels(drawn[0]) if title.startswith("Probe")]
    assert titles == ["Probe mode 1: 64.3%", "Probe mode 2: 28.6%", "Probe mode 3: 7.1%"]


def test_best_epoch_is_marked(drawn):
    training_figure("x.png", history())
    texts = [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()]
    assert "best: 0.4 (epoch 3)" in texts


def test_colour_bars_say_what_they_show_and_what_lies_beyond(drawn):
    truth = sample()
    reconstruction_figure("x.png", truth, truth * np.exp(0.1j), reference="Label")
    bars = [axes.get_ylabel() for axes in drawn[0].axes if not axes.images]
    assert [bar.partition("\n")[0] for bar in bars] == [
        *("amplitude", "amplitude", "rad", "rad", "reconstruction - label", "reconstruction - label, rad")
    ]
    low, high = robust_limits(np.abs(truth), np.abs(truth))
    assert bars[0] == f"amplitude\n{low:.3g} to {high:.3g}, 1.0% beyond"


def test_little_contrast_of_amplitude_looks_like_little(drawn):
    object_figure("x.png", ObjectImage(np.linspace(0.99, 1.01, 400).reshape(20, 20) + 0j, (0, 0), "test"))
    low, high = panels(drawn[0])["Object: amplitude"].images[0].get_clim()
    assert high - low == pytest.approx(0.2) and (low + high) / 2 == pytest.approx(1)


def test_a_scale_bar_where_the_pixel_is_known(drawn):
    for pixel_size in (None, 1e-8):
        object_figure("x.png", ObjectImage(sample(), (0.0, 0.0), "test"), pixel_size=pixel_size)
    without, known = (panels(figure)["Object: phase"].artists for figure in drawn)
    (bar,) = known
    assert not without and bar.txt_label.get_text() == "100 nm"  # of 560 nm


def test_a_single_mode_is_drawn_with_its_phase_about_zero(drawn):
    object_figure("x.png", ObjectImage(sample(), (0.0, 0.0), "test"), PROBE[:1].astype(complex))
    shown = [axes for title, axes in panels(drawn[0]).items() if title.startswith("Probe")]
    assert [axes.images[0].get_extent() for axes in shown] == [[-12.5, 11.5, 11.5, -12.5]] * 2


def test_robust_limits():
    values = np.r_[np.linspace(0, 1, 1001), 1e9, np.nan]
    low, high = robust_limits(values)
    assert 0 <= low < 0.01
    assert 0.99 < high <= 1
    assert robust_limits(np.array([-3.0, 1.0]), symmetric=True) == pytest.approx((-3, 3), rel=0.01)
    assert robust_limits(np.full(5, 2.0)) == (1.5, 2.5)
    assert robust_limits(np.full(5, np.nan)) == (0, 1)


def test_helpers_draw_any_image(tmp_path):
    figure, axes = new_figure(1, 1, title="counts")
    show_image(axes[0, 0], np.full((3, 4), np.nan), label="nothing", unit="counts")
    save_figure(tmp_path / "nothing.pdf", figure)
    assert (tmp_path / "nothing.pdf").read_bytes().startswith(b"%PDF")
