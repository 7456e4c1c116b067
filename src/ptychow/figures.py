"""Pictures of objects, reconstructions and trainings. Matplotlib without pyplot: no windows, no global state.

Amplitude is grey, phase blue to yellow (cividis: even steps look even, also to the colour-blind), errors
blue-white-red and symmetric about zero. What is to be compared shares its limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.files import atomic_path
from ptychow.metrics import FourierRingCorrelation, half_bit
from ptychow.scan import ObjectImage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AMPLITUDE, PHASE, ERROR, INTENSITY = "gray", "cividis", "RdBu_r", "magma"

Limits = tuple[float, float]


def new_figure(
    rows: int, columns: int, *, panel: tuple[float, float] = (4.2, 3.6), title: str = ""
) -> tuple[Figure, Any]:
    """A figure and its (rows, columns) array of axes; `panel` is (width, height) of one, inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows + (0.4 if title else 0)), layout="constrained")
    if title:
        figure.suptitle(title)
    return figure, figure.subplots(rows, columns, squeeze=False)


def save_figure(path: str | Path, figure: Figure, *, dpi: int = 110) -> None:
    """Write the figure (the suffix chooses the format, PNG without one); nothing is left where that fails.

    Raises InputError for a format that there is not.
    """
    target = Path(path)
    kind, known = target.suffix.lstrip(".").lower() or "png", figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise InputError("no format for a picture", file=target, found=target.suffix, expected=", ".join(known))
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=dpi, format=kind)


def show_image(
    axes: Axes,
    image: NDArray[Any],
    *,
    label: str,
    unit: str = "",
    limits: Limits | None = None,
    pixel_size: float | None = None,
    colours: str = AMPLITUDE,
    origin: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Draw a real (H, W) image with title, colour bar and scale; masked or NaN pixels are left blank.

    limits: of the colours; the 0.5 to 99.5 % range by default (the bar's ends say whether values lie beyond).
    pixel_size: metres (the scale is then in micrometres, or nanometres for a small image) or None (pixels).
    origin: (row, column) in pixels of pixel [0, 0].
    """
    height, width = image.shape
    scale, length = 1.0, "pixels"
    if pixel_size is not None:
        scale, length = (1e6, "µm") if max(height, width) * pixel_size > 2e-6 else (1e9, "nm")
        scale *= pixel_size
    top, left = (np.array(origin) - 0.5) * scale
    low, high = limits if limits is not None else robust_limits(image)
    drawn = axes.imshow(
        image,
        cmap=colours,
        vmin=low,
        vmax=high,
        interpolation="nearest",
        extent=(left, left + width * scale, top + height * scale, top),
    )
    axes.set_title(label, fontsize="medium")
    axes.set_xlabel(f"x ({length})", fontsize="small")
    axes.set_ylabel(f"y ({length})", fontsize="small")
    axes.tick_params(labelsize="small")
    beyond = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    shown = np.ma.masked_invalid(image).compressed()
    extend = beyond[bool((shown < low).any()), bool((shown > high).any())]
    bar = axes.figure.colorbar(drawn, ax=axes, shrink=0.9, extend=extend)
    bar.set_label(unit, fontsize="small")
    bar.ax.tick_params(labelsize="small")


def robust_limits(*images: NDArray[Any], symmetric: bool = False) -> Limits:
    """Common colour limits: the 0.5 to 99.5 % range of all finite values, or +- the 99.5 % magnitude."""
    values = np.concatenate([np.ma.compressed(np.ma.masked_invalid(image)) for image in images])
    if not values.size:
        return 0.0, 1.0
    if symmetric:
        high = float(np.percentile(np.abs(values), 99.5)) or 1e-12
        return -high, high
    low, high = (float(limit) for limit in np.percentile(values, (0.5, 99.5)))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def reconstruction_figure(
    path: str | Path,
    truth: NDArray[Any] | None,
    reconstruction: NDArray[Any],
    *,
    region: NDArray[Any] | None = None,
    pixel_size: float | None = None,
    origin: tuple[float, float] = (0.0, 0.0),
    reference: str = "Truth",
    title: str = "",
) -> None:
    """Amplitude and phase columns; rows truth, reconstruction, error (without truth: the reconstruction alone).

    truth, reconstruction: (H, W) complex, aligned. reference: what the truth is called (a label is none).
    region: (H, W), what was covered (non-zero); the rest stays blank.
    """
    lit = np.isfinite(reconstruction) if region is None else (np.asarray(region) > 0) & np.isfinite(reconstruction)
    rows, columns = _bounding_box(lit)
    lit, found = lit[rows, columns], reconstruction[rows, columns]
    corner = (origin[0] + rows.start, origin[1] + columns.start)
    named = {"Reconstruction": found} if truth is None else {reference: truth[rows, columns], "Reconstruction": found}
    # Phases are drawn about the mean direction of what is compared with, so that wraps fall where nothing is.
    first = next(iter(named.values()))
    turn = np.exp(-1j * np.angle(np.where(lit, np.nan_to_num(first), 0).sum()))
    amplitudes = {name: np.ma.array(np.abs(image), mask=~lit) for name, image in named.items()}
    phases = {name: np.ma.array(np.angle(image * turn), mask=~lit) for name, image in named.items()}
    height, width = lit.shape
    figure, axes = new_figure(
        len(named) + (truth is not None),
        2,
        panel=(4.6, max(2.4, min(5.5, 3.6 * height / width))),
        title=title,
    )
    common: dict[str, Any] = {"pixel_size": pixel_size, "origin": corner}
    for column, (quantity, images, unit, colours) in enumerate(
        (("amplitude", amplitudes, "", AMPLITUDE), ("phase", phases, "rad", PHASE))
    ):
        limits = robust_limits(*images.values())
        for row, (name, image) in enumerate(images.items()):
            label = f"{name}: {quantity}"
            show_image(axes[row, column], image, label=label, unit=unit, limits=limits, colours=colours, **common)
    if truth is not None:
        difference = np.ma.array(np.angle(found * np.conj(named[reference])), mask=~lit)
        errors = (amplitudes["Reconstruction"] - amplitudes[reference], difference)
        for column, (quantity, error, unit) in enumerate(zip(("amplitude", "phase"), errors, ("", "rad"), strict=True)):
            limits = robust_limits(error, symmetric=True)
            label = f"Error: {quantity} (rms {np.sqrt((error**2).mean()):.3g}{' ' + unit if unit else ''})"
            show_image(axes[-1, column], error, label=label, unit=unit, limits=limits, colours=ERROR, **common)
    save_figure(path, figure)


def object_figure(
    path: str | Path,
    found: ObjectImage,
    probe: NDArray[Any] | None = None,
    *,
    region: NDArray[Any] | None = None,
    pixel_size: float | None = None,
    title: str = "",
) -> None:
    """Object (amplitude, phase) above the probe's modes (intensity), each with its share of the power.

    probe: (modes, H, W) complex; the strongest four are drawn. region: (H, W) non-zero where the object was lit.
    """
    lit = np.ones(found.image.shape, bool) if region is None else np.asarray(region) > 0
    rows, columns = _bounding_box(lit)
    lit, image = lit[rows, columns], found.image[rows, columns]
    image = image * np.exp(-1j * np.angle(image[lit].sum()))
    powers = np.zeros(0) if probe is None else (np.abs(probe) ** 2).sum(axis=(1, 2))
    strongest = np.argsort(-powers, kind="stable")[:4]

    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 8.0 if len(strongest) else 4.8), layout="constrained")
    figure.suptitle(title or found.source)
    parts: Any = figure.subfigures(2, 1, height_ratios=(1.5, 1)) if len(strongest) else [figure]
    common: dict[str, Any] = {
        "pixel_size": pixel_size,
        "origin": (found.origin[0] + rows.start, found.origin[1] + columns.start),
    }
    left, right = parts[0].subplots(1, 2)
    amplitude, phase = (np.ma.array(part, mask=~lit) for part in (np.abs(image), np.angle(image)))
    show_image(left, amplitude, label="Object: amplitude", **common)
    show_image(right, phase, label="Object: phase", unit="rad", colours=PHASE, **common)
    if probe is not None:
        axes = parts[1].subplots(1, len(strongest), squeeze=False)[0]
        for number, (mode, axis) in enumerate(zip(strongest, axes, strict=True), start=1):
            intensity = np.abs(probe[mode]) ** 2
            show_image(
                axis,
                intensity,
                label=f"Probe mode {number}: {powers[mode] / powers.sum():.1%}",
                unit="counts",
                limits=(0.0, float(intensity.max())),
                pixel_size=pixel_size,
                colours=INTENSITY,
                origin=(-(intensity.shape[0] // 2), -(intensity.shape[1] // 2)),
            )
    save_figure(path, figure)


def training_figure(path: str | Path, history: Mapping[str, Sequence[float]], *, title: str = "Training") -> None:
    """Loss curves and, where given, the learning rate.

    history: equally long lists by name: "epoch", "train", and, where there are any, "validation" and "learning_rate";
    NaN or None where a value was not taken. The lowest validation loss is marked.
    """
    epochs = np.asarray(history["epoch"])
    rates = history.get("learning_rate")
    figure, axes = new_figure(1, 2 if rates is not None else 1, panel=(5.5, 3.8), title=title)
    losses = axes[0, 0]
    for name, colour in (("train", "tab:blue"), ("validation", "tab:orange")):
        if name not in history:
            continue
        values = np.asarray(history[name], float)
        taken = np.isfinite(values)
        losses.plot(epochs[taken], values[taken], ".-", color=colour, label="training" if name == "train" else name)
        if name == "validation" and taken.any():
            best = int(np.nanargmin(values))
            marker = f"best: {values[best]:.4g} (epoch {epochs[best]:g})"
            losses.plot(epochs[best], values[best], "o", color=colour, fillstyle="none", markersize=9, label=marker)
    losses.set(xlabel="epoch", ylabel="loss", yscale="log")
    losses.grid(True, which="both", alpha=0.3)
    losses.legend()
    if rates is not None:
        axes[0, 1].plot(epochs, rates, color="tab:green")
        axes[0, 1].set(xlabel="epoch", ylabel="learning rate", yscale="log")
        axes[0, 1].grid(True, which="both", alpha=0.3)
    save_figure(path, figure)


def frc_figure(
    path: str | Path,
    curves: Mapping[str, FourierRingCorrelation],
    *,
    halves: bool = False,
    pixel_size: float | None = None,
    title: str = "Fourier ring correlation",
) -> None:
    """Correlation against spatial frequency, with the level it is judged at.

    halves: the curves are between two independent halves of the data (half-bit threshold) instead of against a truth
    (0.5).
    """
    figure, axes = new_figure(1, 1, panel=(6.0, 4.2), title=title)
    plot = axes[0, 0]
    scale = 1.0 if pixel_size is None else 1e-6 / pixel_size
    for name, curve in curves.items():
        crossing = curve.crossing(half_bit(curve.pixels) if halves else 0.5)
        (line,) = plot.plot(curve.frequency * scale, curve.correlation, label=name)
        if crossing < 0.5:
            plot.axvline(crossing * scale, color=line.get_color(), linestyle=":", linewidth=1)
    if halves and curves:
        rings = max(curves.values(), key=lambda curve: len(curve.frequency))
        plot.plot(rings.frequency * scale, half_bit(rings.pixels), "k--", linewidth=1, label="half-bit threshold")
    else:
        plot.axhline(0.5, color="k", linestyle="--", linewidth=1, label="0.5")
    unit = "cycles/pixel" if pixel_size is None else "cycles/µm"
    plot.set(xlabel=f"spatial frequency ({unit})", ylabel="correlation", ylim=(min(0, plot.get_ylim()[0]), 1.05))
    plot.set_xlim(0, 0.5 * scale)
    plot.grid(True, alpha=0.3)
    plot.legend()
    save_figure(path, figure)


def _bounding_box(lit: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns that hold everything lit (all of them where nothing is)."""
    if not lit.any():
        return slice(0, lit.shape[0]), slice(0, lit.shape[1])
    rows, columns = (np.flatnonzero(lit.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
