"""`ptychow simulate`: a scan with its truth, a named twin or of one's own beam, sample and trajectory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptychow.cli.common import Json, Quiet, Report, Seed, output_path
from ptychow.errors import InputError

if TYPE_CHECKING:
    from ptychow.scan import Scan

# Options of a free simulation have no default here: what is not given is left to
# `optics.experiment.Experiment`.


def simulate(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File, or existing folder; by default NAME.cxi here.")
    ] = None,
    list_names: Annotated[bool, typer.Option("--list", help="List twins, samples, beams and trajectories.")] = False,
    twin: Annotated[
        str | None, typer.Option("--twin", help="A twin by name; goes with the next five options only.")
    ] = None,
    seed: Seed = 0,
    lines: Annotated[str, typer.Option("--lines", help="Of the twin's raster: FIRST:LAST, LAST not included.")] = ":",
    columns: Annotated[str, typer.Option("--columns", help="Of the twin's raster: FIRST:LAST.")] = ":",
    counts: Annotated[
        float | None, typer.Option("--counts", help="Photons a frame at the sample; 1,000,000, a twin's 2,000,000.")
    ] = None,
    unknown_mask: Annotated[bool, typer.Option("--unknown-mask", help="Do not say which pixels are dead.")] = False,
    sample: Annotated[
        str | None, typer.Option("--sample", help="What to scan; see --list. By default labyrinth.")
    ] = None,
    phase_step: Annotated[float | None, typer.Option("--phase-step", help="Radians; negative for X-rays.")] = None,
    amplitude_contrast: Annotated[float | None, typer.Option("--amplitude-contrast", help="0 to 1.")] = None,
    feature: Annotated[float | None, typer.Option("--feature", help="Size of lines, cells, in pixels.")] = None,
    beam: Annotated[
        str | None, typer.Option("--beam", help="zone-plate (default), gaussian, or a scan file with a probe to use.")
    ] = None,
    defocus_um: Annotated[
        float | None,
        typer.Option(
            "--defocus-um", help="Of the zone plate; by default the beam is a ring of rms radius 0.2 of the frame."
        ),
    ] = None,
    fwhm: Annotated[
        float | None, typer.Option("--fwhm", help="Of the Gaussian beam, in pixels; 0.3 of the frame.")
    ] = None,
    modes: Annotated[
        str | None,
        typer.Option("--modes", help="Powers of the incoherent modes, such as 0.85,0.1,0.05; by default one mode."),
    ] = None,
    trajectory: Annotated[str | None, typer.Option("--trajectory", help="raster, snake or fermat (default).")] = None,
    points: Annotated[int | None, typer.Option("--points", help="Scan points; 400.")] = None,
    step: Annotated[float | None, typer.Option("--step", help="Between points, in object pixels; 4.")] = None,
    jitter: Annotated[float | None, typer.Option("--jitter", help="Random displacement, in pixels; 0.")] = None,
    size: Annotated[int | None, typer.Option("--size", help="Pixels of a frame in each direction; 64.")] = None,
    energy_kev: Annotated[float | None, typer.Option("--energy-kev", help="Photon energy; 10.")] = None,
    pixel_size_nm: Annotated[float | None, typer.Option("--pixel-size-nm", help="Object pixel; 10.")] = None,
    background: Annotated[float | None, typer.Option("--background", help="Counts a pixel; 0.")] = None,
    dead_pixels: Annotated[int | None, typer.Option("--dead-pixels", help="How many; 0.")] = None,
    saturation: Annotated[
        int | None, typer.Option("--saturation", help="Largest count of a pixel; the largest of --dtype.")
    ] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="uint16 (default) or uint32.")] = None,
    no_noise: Annotated[bool, typer.Option("--no-noise", help="Expected counts instead of counts.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Simulate a scan with its truth and write it, with a picture."""
    report = Report(as_json, quiet)
    if list_names:
        _list(report)
        return
    free: dict[str, Any] = {
        "sample": sample,
        "phase_step": phase_step,
        "amplitude_contrast": amplitude_contrast,
        "feature": feature,
        "beam": beam,
        "defocus": None if defocus_um is None else defocus_um * 1e-6,
        "fwhm": fwhm,
        "mode_powers": None if modes is None else _powers(modes),
        "trajectory": trajectory,
        "points": points,
        "step": step,
        "jitter": jitter,
        "size": size,
        "energy": None if energy_kev is None else energy_kev * 1e3,
        "pixel_size": None if pixel_size_nm is None else pixel_size_nm * 1e-9,
        "background": background,
        "dead_pixels": dead_pixels,
        "saturation": saturation,
        "dtype": dtype,
        "noise": False if no_noise else None,
    }
    given = {name: value for name, value in free.items() if value is not None}
    common = {} if counts is None else {"counts": counts}
    if twin is not None:
        if given:
            raise InputError("a twin's instrument and sample are fixed", field="--twin", found=", ".join(given))
        part = {"lines": _slice("--lines", lines), "columns": _slice("--columns", columns)}
        scan = _simulate_twin(report, twin, seed, mask_known=not unknown_mask, **part, **common)
    else:
        if (lines, columns) != (":", ":"):
            raise InputError(
                "only a twin has a raster to take a part of", field="--lines, --columns", expected="--twin"
            )
        scan = _simulate_experiment(report, given | common | {"seed": seed, "mask_known": not unknown_mask})
    _write(report, scan, output, *([] if beam is None else [Path(beam)]))


def _simulate_twin(report: Report, name: str, seed: int, **settings: Any) -> Scan:
    from ptychow.optics.twins import twin, twin_part

    total = twin_part(settings["lines"], settings["columns"]).size
    with report.progress("Simulating", total) as advance:
        return twin(name, seed, advance=advance, **settings)


def _simulate_experiment(report: Report, settings: dict[str, Any]) -> Scan:
    from ptychow.optics.experiment import BEAMS, Experiment

    probe = None
    if settings.get("beam", BEAMS[0]) not in BEAMS:
        from ptychow.formats import read_scan

        file = settings.pop("beam")
        probe = read_scan(file).probe
        if probe is None:
            raise InputError("has no probe", file=file, remedy="Run `ptychow label` on it, or choose another beam")
        settings.setdefault("size", probe.shape[-1])
    experiment = Experiment(**settings)
    with report.progress("Simulating", experiment.points) as advance:
        return experiment.run(probe=probe, advance=advance)


def _write(report: Report, scan: Scan, output: Path | None, *inputs: Path) -> None:
    from ptychow.figures_simulation import simulation_figure
    from ptychow.formats import write_scan

    target = output_path(output, Path(scan.name), ".cxi", *inputs)
    with report.progress("Writing", len(scan)) as advance:
        write_scan(target, scan, progress=advance)
    report.wrote("scan", target)
    picture = target.with_suffix(".png")
    simulation_figure(picture, scan)
    report.wrote("picture", picture)
    report.finish(
        {
            "name": scan.name,
            "frames": scan.frames.shape,
            "dtype": str(scan.frames.dtype),
            "fingerprint": scan.fingerprint(),
            "pixel_size_m": scan.geometry.pixel_size,
            "metadata": scan.metadata,
        }
    )


def _list(report: Report) -> None:
    from ptychow.optics.experiment import BEAMS
    from ptychow.optics.samples import SAMPLES
    from ptychow.optics.trajectories import TRAJECTORIES
    from ptychow.optics.twins import TWINS

    twins = {name: f"{twin.title} (version {twin.version})" for name, twin in TWINS.items()}
    samples = {name: (draw.__doc__ or "").splitlines()[0] for name, draw in SAMPLES.items()}
    report.table("Twins (--twin)", ["name", "what it is"], list(twins.items()))
    report.table("Samples (--sample)", ["name", "what it is"], list(samples.items()))
    report.line(f"beams (--beam): {', '.join(BEAMS)}, or a scan file with a probe")
    report.line(f"trajectories (--trajectory): {', '.join(TRAJECTORIES)}")
    report.finish({"twins": twins, "samples": samples, "beams": BEAMS, "trajectories": list(TRAJECTORIES)})


def _slice(option: str, text: str) -> slice:
    """ "FIRST:LAST" (each may be left out) as a slice."""
    first, separator, last = text.partition(":")
    try:
        if not separator:
            raise ValueError
        return slice(int(first) if first else None, int(last) if last else None)
    except ValueError:
        raise InputError("not a range", field=option, found=text, expected="FIRST:LAST") from None


def _powers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(power) for power in text.split(","))
    except ValueError:
        raise InputError("not numbers", field="--modes", found=text, expected="such as 0.85,0.1,0.05") from None
