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
from ptychow.metrics import FourierRingCorrelation, resolution_text
from ptychow.scan import ObjectImage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AMPLITUDE, PHASE, CYCLIC, ERROR, INTENSITY = "gray", "cividis", "twilight", "RdBu_r", "magma"
WIDE = 2  # times as wide as high, and colour bars lie below
LEAST_SPAN = 0.2  # of amplitudes: a few per cent of noise must not look like strong contrast

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
    pixels: str = "object pixels",
    colours: str = AMPLITUDE,
    origin: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Draw a real (H, W) image with title, colour bar and scale; masked or NaN pixels are left blank.

    unit: what the colours are, beside their bar. limits: of the colours; the 0.5 to 99.5 % range by default. Where
    values lie beyond, the bar has pointed ends, and its label names the limits and the part of the pixels beyond them.
    pixel_size: metres (the scale is then in micrometres, or nanometres for a small image, with a bar) or None (pixels,
    of the kind `pixels`). origin: (row, column) in pixels of pixel [0, 0].
    """
    height, width = image.shape
    scale, length = 1.0, pixels
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
    if pixel_size is not None:
        _add_scale_bar(axes, width * scale, length)
    ends = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    shown = np.ma.masked_invalid(image).compressed()
    below, above = shown < low, shown > high
    # Along the longer side of a wide image: beside it the bar would be taller than the image.
    below_it = is_wide(height, width)
    place: dict[str, Any] = {"location": "bottom", "aspect": 40} if below_it else {"shrink": 0.9}
    bar = axes.figure.colorbar(drawn, ax=axes, extend=ends[bool(below.any()), bool(above.any())], **place)
    words = [unit] if unit else []
    if (below | above).any():
        words.append(f"{low:.3g} to {high:.3g}, {(below | above).mean():.1%} beyond")
    bar.set_label((", " if below_it else "\n").join(words), fontsize="small")
    bar.ax.tick_params(labelsize="small")


def is_wide(height: float, width: float) -> bool:
    """Whether an image of this shape has its colour bar below it."""
    return width > WIDE * height


def centred(image: NDArray[Any]) -> tuple[float, float]:
    """The origin that puts 0 at a probe's middle, [H//2, W//2]: there its position is."""
    return -(image.shape[-2] // 2), -(image.shape[-1] // 2)


def _add_scale_bar(axes: Axes, width: float, unit: str) -> None:
    """A bar of 1, 2 or 5 times a power of ten, up to a third of the picture's width."""
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    power = 10.0 ** np.floor(np.log10(width / 3))
    length = power * max(step for step in (1, 2, 5) if step * power <= width / 3)
    axes.add_artist(AnchoredSizeBar(axes.transData, length, f"{length:g} {unit}", "lower left", borderpad=0.5))


def robust_limits(*images: NDArray[Any], symmetric: bool = False, least_span: float = 0.0) -> Limits:
    """Common colour limits: the 0.5 to 99.5 % range of all finite values, or +- the 99.5 % magnitude.

    least_span: a narrower range is widened to it about its middle.
    """
    values = np.concatenate([np.ma.compressed(np.ma.masked_invalid(image)) for image in images])
    if not values.size:
        return 0.0, 1.0
    if symmetric:
        high = float(np.percentile(np.abs(values), 99.5)) or 1e-12
        return -high, high
    low, high = (float(limit) for limit in np.percentile(values, (0.5, 99.5)))
    missing = (least_span - (high - low)) / 2
    low, high = low - max(missing, 0), high + max(missing, 0)
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
        # Colour bars below wide images need room of their own.
        panel=(5.0, 4.1 * height / width + 1.6 if is_wide(height, width) else min(5.5, 3.6 * height / width)),
        title=title,
    )
    common: dict[str, Any] = {"pixel_size": pixel_size, "origin": corner}
    for column, (quantity, images, unit, colours) in enumerate(
        (("amplitude", amplitudes, "amplitude", AMPLITUDE), ("phase", phases, "rad", PHASE))
    ):
        limits = robust_limits(*images.values(), least_span=LEAST_SPAN if quantity == "amplitude" else 0)
        for row, (name, image) in enumerate(images.items()):
            label = f"{name}: {quantity}"
            show_image(axes[row, column], image, label=label, unit=unit, limits=limits, colours=colours, **common)
    if truth is not None:
        difference = np.ma.array(np.angle(found * np.conj(named[reference])), mask=~lit)
        errors = (amplitudes["Reconstruction"] - amplitudes[reference], difference)
        for column, (quantity, error, unit) in enumerate(zip(("amplitude", "phase"), errors, ("", "rad"), strict=True)):
            limits = robust_limits(error, symmetric=True)
            label = f"Error: {quantity} (rms {np.sqrt((error**2).mean()):.3g}{' ' + unit if unit else ''})"
            which = f"reconstruction - {reference.lower()}{', ' + unit if unit else ''}"
            show_image(axes[-1, column], error, label=label, unit=which, limits=limits, colours=ERROR, **common)
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

    probe: (modes, H, W) complex; the strongest four are drawn, and of a single one the phase, too.
    region: (H, W) non-zero where the object was lit.
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
    limits = robust_limits(amplitude, least_span=LEAST_SPAN)
    show_image(left, amplitude, label="Object: amplitude", unit="amplitude", limits=limits, **common)
    show_image(right, phase, label="Object: phase", unit="rad", colours=PHASE, **common)
    if probe is not None:
        axes = parts[1].subplots(1, max(len(strongest), 2), squeeze=False)[0]
        where: dict[str, Any] = {"pixel_size": pixel_size, "origin": centred(probe[0])}
        for number, (mode, axis) in enumerate(zip(strongest, axes, strict=False), start=1):
            intensity = np.abs(probe[mode]) ** 2
            show_image(
                axis,
                intensity,
                label=f"Probe mode {number}: {powers[mode] / powers.sum():.1%}",
                unit="counts",
                limits=(0.0, float(intensity.max())),
                colours=INTENSITY,
                **where,
            )
        if len(strongest) == 1:
            lit = np.abs(probe[0]) > 0.1 * np.abs(probe[0]).max()
            phase = np.ma.array(np.angle(probe[0]), mask=~lit)
            label = "Probe: phase (intensity > 1 %)"
            show_image(axes[1], phase, label=label, unit="rad", limits=(-np.pi, np.pi), colours=CYCLIC, **where)
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
        axes[0, 1].plot(epochs, rates, ".-", color="tab:green")
        axes[0, 1].set(xlabel="epoch", ylabel="learning rate", yscale="log")
        axes[0, 1].grid(True, which="both", alpha=0.3)
    save_figure(path, figure)


def frc_figure(
    path: str | Path,
    curves: Mapping[str, FourierRingCorrelation],
    *,
    pixel_size: float | None = None,
    title: str = "Fourier ring correlation",
) -> None:
    """Correlation with a reference against spatial frequency, with the level it is judged at, 0.5, and where it falls
    below that.
    """
    figure, axes = new_figure(1, 1, panel=(6.0, 4.4), title=title)
    plot = axes[0, 0]
    for name, curve in curves.items():
        crossing = curve.crossing(0.5)
        label = f"{name}: {resolution_text(crossing, pixel_size)}"
        (line,) = plot.plot(curve.frequency, curve.correlation, label=label)
        if 0 < crossing < 0.5:
            plot.axvline(crossing, color=line.get_color(), linestyle=":", linewidth=1)
    plot.axhline(0.5, color="k", linestyle="--", linewidth=1)
    plot.set(xlabel="spatial frequency (cycles/pixel)", ylabel="correlation with the reference", xlim=(0, 0.5))
    plot.set_ylim(min(0, plot.get_ylim()[0]), 1.05)
    if pixel_size is not None:
        scale = 1e-6 / pixel_size
        upper = plot.secondary_xaxis("top", functions=(lambda pixels: pixels * scale, lambda microns: microns / scale))
        upper.set_xlabel("cycles/µm")
    plot.grid(True, alpha=0.3)
    plot.legend(fontsize="small", title="falls to 0.5 at", title_fontsize="small")
    save_figure(path, figure)


def _bounding_box(lit: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns that hold everything lit (all of them where nothing is)."""
    if not lit.any():
        return slice(0, lit.shape[0]), slice(0, lit.shape[1])
    rows, columns = (np.flatnonzero(lit.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
