"""The pictures of docs/conventions.md and docs/training.md, drawn with PtychoW's own functions.

    python docs/make_pictures.py            all of them, in ten seconds
    python docs/make_pictures.py NAME ...   some of them

The README's pictures are not among them: docs/run_walkthrough.py brings them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ptychow.detector import Preparation
from ptychow.figures import AMPLITUDE, INTENSITY, PHASE, new_figure, save_figure, show_image
from ptychow.optics.beam import intensity
from ptychow.optics.experiment import Experiment
from ptychow.optics.propagation import far_field
from ptychow.optics.trajectories import fermat
from ptychow.optics.twins import twin
from ptychow.orientation import Orientation
from ptychow.patches import PatchExtractor, corners
from ptychow.stitch import Canvas, probe_weight, solve_constants
from ptychow.training.split import spatial_split

FOLDER = Path(__file__).parent / "pictures"
MARK = "tab:orange"


def bare(axes: Axes, image: NDArray[Any], title: str, colours: str = INTENSITY, **options: Any) -> None:
    """An image with a title and nothing else."""
    axes.imshow(image, cmap=colours, interpolation="nearest", **options)
    axes.set_title(title, fontsize="medium")
    axes.set_xticks([])
    axes.set_yticks([])


def outline(axes: Axes, top: float, left: float, size: float, **style: Any) -> None:
    """The border of size x size pixels whose first pixel is (top, left)."""
    axes.add_patch(Rectangle((left - 0.5, top - 0.5), size, size, fill=False, **style))


def axes(path: Path) -> None:
    """A frame with its zero frequency; the object with a position, its patch and the patch's corner."""
    scan = Experiment(points=1, size=16, seed=3, feature=3, fwhm=5, beam="gaussian").run()
    figure, panels = new_figure(1, 2, panel=(5.6, 4.6))
    left, right = panels[0]
    bare(left, np.log10(scan.frames[0] + 1.0), "A frame (H, W) = (16, 16)")
    outline(left, 8, 8, 1, edgecolor=MARK, linewidth=2)
    left.annotate(
        "zero frequency: pixel [H//2, W//2] = [8, 8]",
        (8, 8.6),
        (7.5, 13.6),
        ha="center",
        bbox={"facecolor": "white", "edgecolor": MARK},
        arrowprops={"arrowstyle": "->", "color": MARK},
    )
    left.set_xticks(range(0, 16, 4))
    left.set_yticks(range(0, 16, 4))
    left.set(xlabel="column, to the right (x)", ylabel="row, downward (y)")

    sample = Experiment(points=2, step=14, size=16, seed=5, feature=6).run().object
    assert sample is not None
    image, origin = sample.image[:40, :40], (-10.0, -6.0)
    position = np.array([10.0, 17.0])
    show_image(right, np.angle(image), label="The object, origin (-10, -6)", unit="rad", colours=PHASE, origin=origin)
    right.set(xlabel="x: position, object pixels", ylabel="y: position, object pixels")
    (top, column) = corners(position[None], 16)[0]
    outline(right, top, column, 16, edgecolor=MARK, linewidth=2)
    right.plot(position[1], position[0], "o", color=MARK)
    right.plot(column, top, "s", color=MARK)
    boxed = {"ha": "center", "bbox": {"facecolor": "white", "edgecolor": MARK}}
    right.text(position[1], position[0] + 1.5, "position (10, 17)", va="top", **boxed)
    right.text(position[1], top - 1.5, "corner (2, 9) = position - 16//2", va="bottom", **boxed)
    save_figure(path, figure)


def crop_bin(path: Path) -> None:
    """What a crop of the detector and what a bin do to the object's pixel and to the field of view."""
    experiment = Experiment(points=30, size=128, step=8, seed=1, feature=8, beam="gaussian", fwhm=22)
    scan = experiment.run()
    assert scan.object is not None and scan.probe is not None
    choices = {
        "as stored": Preparation(),
        "crop to 64": Preparation(crop=64),
        "bin by 2": Preparation(bin=2),
    }
    figure, panels = new_figure(2, 3, panel=(4.4, 4.0))
    for column, (title, preparation) in enumerate(choices.items()):
        size = preparation.output_size(scan.frame_shape)[0]
        prepared = np.square(preparation.apply(scan.frames[:])).mean(axis=0)[0]
        geometry = preparation.output_geometry(scan.geometry, scan.frame_shape)
        assert geometry.pixel_size is not None and geometry.detector_pixel is not None
        detector = f"detector pixel {geometry.detector_pixel * 1e6:.0f} µm"
        bare(panels[0, column], np.log10(prepared + 1), f"{title}: {size} x {size}\n{detector}")
        probe = intensity(preparation.probe(scan.probe))
        pixel = geometry.pixel_size * 1e9
        half = size // 2 * pixel
        panels[1, column].imshow(
            np.sqrt(probe), cmap=INTENSITY, interpolation="nearest", extent=(-half, half, half, -half)
        )
        panels[1, column].set_title(f"object pixel {pixel:.3g} nm, field {size * pixel:.0f} nm", fontsize="medium")
        panels[1, column].set(xlim=(-640, 640), ylim=(640, -640), xlabel="x (nm)", ylabel="y (nm)")
        panels[1, column].set_facecolor("0.85")
    outline(panels[0, 0], 32, 32, 64, edgecolor=MARK, linewidth=1.5)
    panels[0, 0].text(64, 30, "the crop", color=MARK, ha="center", va="bottom")
    save_figure(path, figure)


def orientations(path: Path) -> None:
    """The eight orientations of an F, turned about the pixel of zero frequency."""
    letter = np.zeros((10, 10))
    letter[1:9, 2] = letter[1, 2:7] = letter[4, 2:6] = 1
    figure, panels = new_figure(2, 4, panel=(2.6, 2.8))
    for panel, orientation in zip(panels.ravel(), Orientation, strict=True):
        bare(panel, orientation.apply_about_zero_frequency(letter), str(orientation), "gray_r")
        outline(panel, 5, 5, 1, edgecolor=MARK, linewidth=2)
    save_figure(path, figure)


def signs(path: Path) -> None:
    """The transform's sign: a phase that grows to the right and downward moves the light there."""
    size = 32
    beam = Experiment(size=size, beam="gaussian", fwhm=8).probe()[0]
    rows, columns = np.indices((size, size)) - size // 2
    ramp = np.exp(2j * np.pi * (3 * rows + 8 * columns) / size)
    figure, panels = new_figure(1, 3, panel=(4.4, 3.6))
    show_image(
        panels[0, 0],
        np.angle(ramp),
        label="Object: exp(2πi (3 row + 8 column) / 32)",
        unit="rad",
        colours="twilight",
        limits=(-np.pi, np.pi),
        origin=(-16, -16),
    )
    for panel, label, wave in ((panels[0, 1], "without it", beam), (panels[0, 2], "with it", beam * ramp)):
        pattern = np.abs(far_field(wave)) ** 2
        show_image(
            panel,
            pattern,
            label=f"Frame {label}",
            unit="part of the counts",
            colours=INTENSITY,
            limits=(0, pattern.max()),
        )
        row, column = np.unravel_index(int(pattern.argmax()), pattern.shape)
        panel.text(16, 29, f"brightest pixel [{row}, {column}]", color=MARK, ha="center", weight="bold")
        panel.set(xlabel="column", ylabel="row")
    save_figure(path, figure)


def gauge(path: Path) -> None:
    """Patches that are right up to one constant phase each: averaged as they are, and after solving for it."""
    scan = twin("sim-26id-wide", 0, lines=slice(0, 40, 2), columns=slice(0, 60, 2))
    assert scan.object is not None and scan.probe is not None
    weight = probe_weight(scan.probe)
    patches = PatchExtractor(scan.object, 64)(scan.positions_px)
    unknown = np.exp(2j * np.pi * np.random.default_rng(0).random(len(patches)))
    turned = (patches * unknown[:, None, None]).astype(np.complex64)
    constants = solve_constants(turned, scan.positions_px, weight)
    figure, panels = new_figure(1, 3, panel=(4.6, 3.1))
    versions = {
        "Patches as the network gives them": turned,
        "After solve_constants": turned * constants[:, None, None],
    }
    for panel, (label, given) in zip(panels[0, 1:], versions.items(), strict=True):
        canvas = Canvas(scan.positions_px, weight)
        canvas.add(given, scan.positions_px)
        lit = canvas.coverage() > 0.1 * canvas.coverage().max()
        image = canvas.image()
        image = image * np.exp(-1j * np.angle(image[lit].sum()))
        phase = np.ma.array(np.angle(image), mask=~lit)
        show_image(panel, phase, label=label, unit="rad", colours=PHASE, limits=(-np.pi, np.pi), origin=canvas.origin)
    show_image(
        panels[0, 0],
        np.angle(np.block([[turned[0], turned[1]], [turned[30], turned[31]]])),
        label="Four neighbouring patches",
        unit="rad",
        colours=PHASE,
        limits=(-np.pi, np.pi),
    )
    save_figure(path, figure)


def mask(path: Path) -> None:
    """A frame with bad pixels, its mask, and what a Preparation makes of both."""
    scan = twin("sim-26id-wide", 0, lines=slice(0, 1), columns=slice(0, 8))
    preparation = Preparation(mask=scan.mask)
    assert scan.mask is not None
    figure, panels = new_figure(1, 3, panel=(4.0, 3.8))
    bare(panels[0, 0], np.log10(scan.frames[0] + 1.0), "Stored counts, twenty dead pixels")
    bare(panels[0, 1], scan.mask, "mask: True (white) = good", AMPLITUDE)
    filled = np.square(preparation.apply(scan.frames[:1])[0, 0])
    bare(panels[0, 2], np.log10(filled + 1.0), "Prepared: mean of the good neighbours")
    save_figure(path, figure)


def split(path: Path) -> None:
    """The spatial split: blocks along the longer axis with a gap of one patch; a random split beside it."""
    positions = fermat(1400, 9.5) * (1.35, 0.9)
    found = spatial_split(positions, 64, validation=0.1, holdout=0.15)
    figure, panels = new_figure(1, 2, panel=(5.2, 5.6))
    left, right = panels[0]
    colours = {"train": "tab:blue", "validation": "tab:orange", "holdout": "tab:red"}
    used = np.concatenate([found.train, found.validation, found.holdout])
    gaps = np.setdiff1d(np.arange(len(positions)), used)
    parts = {name: getattr(found, name) for name in colours} | {"in a gap, used for nothing": gaps}
    for name, chosen in parts.items():
        label = f"{name} ({len(chosen)} frames)"
        left.plot(*positions[chosen].T[::-1], ".", color=colours.get(name, "0.75"), markersize=4, label=label)
    left.set_title("--split spatial --validation 0.1 --holdout 0.15", fontsize="medium")
    order = np.random.default_rng(0).permutation(len(positions))
    for name, chosen in (("train", order[140:]), ("validation", order[:140])):
        label = f"{name} ({len(chosen)} frames)"
        right.plot(*positions[chosen].T[::-1], ".", color=colours[name], markersize=4, label=label)
    right.set_title("--split random: every patch shares pixels with training", fontsize="medium")
    middle = found.train[np.argsort(-positions[found.train, 0])[:20]]
    nearest = middle[np.abs(positions[middle, 1]).argmin()]
    for panel, index in ((left, nearest), (right, order[0])):
        top, column = corners(positions[index][None], 64)[0]
        outline(panel, top, column, 64, edgecolor="k", linewidth=1.5, label="one 64-pixel patch")
        panel.set_aspect("equal")
        panel.invert_yaxis()
        panel.set(xlabel="x (object pixels)", ylabel="y (object pixels)")
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), fontsize="small", ncols=2)
    save_figure(path, figure)


PICTURES = {
    "axes": axes,
    "crop_bin": crop_bin,
    "orientations": orientations,
    "signs": signs,
    "gauge": gauge,
    "mask": mask,
    "split": split,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name](FOLDER / f"{name}.png")
        print(FOLDER / f"{name}.png")
