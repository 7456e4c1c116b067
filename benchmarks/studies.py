"""Beyond the paper: dose, overlap, generalisation, and the iterative engines. Writes docs/results/studies.{md,json}.

    python benchmarks/studies.py
    python benchmarks/studies.py --only dose engines

On the simulated twin of the paper's data set, W3 with one seed. The networks of dose, overlap and beside the engines
are those of the paper benchmark (trained now where they are not in the cache). Every finished part leaves a JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import study_parts
from common import machine
from paper_tables import table
from ptychow.figures import new_figure, save_figure
from ptychow.files import write_json
from ptychow.model import software_versions
from ptychow.solver import METHODS

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "dose": study_parts.dose,
    "networks": study_parts.networks,
    "engines": study_parts.engines,
    "overlap": study_parts.overlap,
    "samples": study_parts.samples,
    "defocus": study_parts.defocus,
}
NAMES = {"w3": "W3", "w1": "W1", "ptychonn": "PtychoNN"} | {name: method.title for name, method in METHODS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--report-only", action="store_true", help="Only write the page from the JSONs there are.")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = options.output / "studies"
    for name in () if options.report_only else options.only:
        result = folder / f"{name}.json"
        if not result.exists():
            write_json(result, {**PARTS[name](options.output), "versions": software_versions(), **machine()})
            print(f"{name} done", flush=True)
    write_report(folder, options.output)


def write_report(folder: Path, output: Path) -> None:
    """The page and its JSON, from the JSONs of the finished parts."""
    found = {
        name: json.loads((folder / f"{name}.json").read_text()) for name in PARTS if (folder / f"{name}.json").exists()
    }
    write_json(output / "studies.json", found)
    sections = [
        SECTIONS[name](found[name], folder) if name in found else f"{TITLES[name]}\n\nNot measured yet."
        for name in PARTS
    ]
    page = "\n\n".join([INTRODUCTION, *sections, machines(found)])
    (output / "studies.md").write_text(page + "\n", encoding="utf-8")
    print(f"wrote {output / 'studies.md'}")


def machines(found: dict[str, Any]) -> str:
    """What each part was measured on."""
    places: dict[str, list[str]] = {}
    for name, part in found.items():
        words = [part["machine"]["cpu"], f"{part['machine']['threads']} thread", part.get("precision", "")]
        places.setdefault(", ".join(filter(None, words)), []).append(name)
    told = [f"{', '.join(names)} on {place}" for place, names in places.items()]
    return f"## Where\n\n{'; '.join(told)}. Trainings are in bfloat16 where the processor has it."


INTRODUCTION = """# Beyond the paper

Made by `python benchmarks/studies.py` ([source](../../benchmarks/studies.py)); numbers in [studies.json](studies.json).
W3, one seed, one simulated object: differences of a tenth mean little. Unexplained phase variance: 0 is perfect, a flat
patch scores 1. Seconds are processor seconds of one thread."""

TITLES = {
    "dose": "## Noise and dose",
    "networks": "## Against the iterative engines",
    "engines": "### The engines",
    "overlap": "## Overlap",
    "samples": "## Other samples",
    "defocus": "## Another defocus",
}


def dose_section(found: dict[str, Any], folder: Path) -> str:
    counts, errors = found["counts"], found["unexplained"]
    rows = [
        [f"{count:.0f}", f"{factor:.4g}", *(f"{errors[name][number]:.3f}" for name in ("sqrt", "raw"))]
        for number, (count, factor) in enumerate(zip(counts, found["factors"], strict=True))
    ]
    curves = {"root counts, scaled": errors["sqrt"], "raw counts": errors["raw"]}
    plot(folder / "dose.png", {n: list(zip(counts, e, strict=True)) for n, e in curves.items()}, "counts a frame")
    limits = {name: f"x{low:.2g} to x{high:.2g}" for name, (low, high) in found["limits"].items()}
    return (
        f"{TITLES['dose']}\n\n"
        + table(["counts a frame", "x training's", "root counts, `ptychow` recipe", "raw counts, `paper` recipe"], rows)
        + "\n\n![dose](studies/dose.png)\n\nThe leak-free block of the paper benchmark, stitched map, simulated at "
        "each count rate; both networks were trained at x1. Raw counts below 3 are set to 0: an error of 1.000 "
        "stands where that leaves whole frames empty, and no map. Fewer counts bring noise to both; to raw counts "
        "another rate is also another input. The error stays below twice its own from "
        f"{limits['sqrt']} with root counts, from {limits['raw']} with raw ones: a Model's `count_limits`."
    )


def networks_section(found: dict[str, Any], folder: Path) -> str:
    rows = [[NAMES[name], f"{seconds:.1f}", f"{error:.3f}"] for name, [(seconds, error)] in found["points"].items()]
    return (
        f"{TITLES['networks']}\n\n"
        + table(["", "seconds", "unexplained"], rows)
        + f"\n\n{found['frames']} frames of the leak-free block, stitched object where light fell. The networks are of "
        "the `paper` recipe; their training is not in their seconds."
    )


def engines_section(found: dict[str, Any], folder: Path) -> str:
    networks = folder / "networks.json"
    beside = json.loads(networks.read_text()) if networks.exists() else None
    factor = 1.0 if beside is None else same_machine(found, beside)
    curves = {
        NAMES[name]: [(factor * seconds, error) for seconds, error in points]
        for name, points in found["points"].items()
    }
    also = {} if beside is None else {NAMES[name]: points for name, points in beside["points"].items()}
    plot(folder / "engines.png", {**curves, **also}, "processor seconds")
    rows = [[name, *(f"{error:.3f}" for _, error in points), f"{points[-1][0]:.0f}"] for name, points in curves.items()]
    return (
        f"{TITLES['engines']}\n\n"
        + table(["unexplained after epoch", *map(str, found["epochs"]), "seconds for all"], rows)
        + "\n\n![engines](studies/engines.png)\n\nThe same block. Every engine starts from the true probe and a flat "
        "object; its ramp and shift are removed, too. Measured in another run than the networks: seconds are brought "
        f"to theirs by LSQML's, which are of both (times {factor:.2f}). {unfinished(curves)} On measured scans: "
        "[solvers.md](solvers.md)."
    )


def same_machine(engines: dict[str, Any], networks: dict[str, Any]) -> float:
    """What the engines' seconds are multiplied by, so that LSQML takes as long as it did beside the networks."""
    seconds, _ = engines["points"]["lsqml"][engines["epochs"].index(networks["lsqml"]["epochs"])]
    return float(networks["lsqml"]["seconds"] / seconds)


def unfinished(curves: dict[str, Any]) -> str:
    """In words, for which of the curves the last doubling of the epochs still took a tenth off the error."""
    names = [name for name, points in curves.items() if points[-1][1] < 0.9 * points[-2][1]]
    return f"The last doubling of the epochs took more than a tenth off the error of {', '.join(names) or 'none'}."


def overlap_section(found: dict[str, Any], folder: Path) -> str:
    rows = [
        [f"{r['step_px']}", f"{r['frames']}", f"{r['w3']:.3f}", f"{r['lsqml']:.3f}", f"{r['lsqml_epochs']}"]
        for r in found["rows"]
    ]
    curves = {NAMES[name]: [(row["step_px"], row[name]) for row in found["rows"]] for name in ("w3", "lsqml")}
    plot(folder / "overlap.png", curves, "step, pixels")
    return (
        f"{TITLES['overlap']}\n\n"
        + table(["step, pixels", "frames", "W3", "LSQML", "after epochs"], rows)
        + "\n\n![overlap](studies/overlap.png)\n\nThe same 96 x 96 pixels of the leak-free block, every n-th line and "
        "column; the beam is 6 pixels wide at half maximum, so that beams beyond that step hardly overlap. LSQML saw "
        "as many patterns at every step. Pixels count that got a tenth of the largest illumination."
    )


def samples_section(found: dict[str, Any], folder: Path) -> str:
    names = list(found["table"])
    rows = [[name, *(f"{found['table'][name][other]:.2f}" for other in names)] for name in names]
    return (
        f"{TITLES['samples']}\n\n"
        + table(["trained on", *names], rows)
        + f"\n\nPer patch, probe-weighted, constant removed. {study_parts.STEPS} steps of {study_parts.BATCH_SIZE}, "
        "900 frames each; tested on 300 frames of another object. Above 1: worse than a flat patch. Where the "
        "phase hardly varies within a patch (natural-image, cells) the errors are parts of next to nothing, and what a "
        "network makes up that has learnt strong samples is large beside it."
    )


def defocus_section(found: dict[str, Any], folder: Path) -> str:
    rows = [
        [f"{1e6 * r['defocus_m']:.2f}", f"{r['unexplained']:.2f}", r["said"].replace("|", "/")] for r in found["rows"]
    ]
    return (
        f"{TITLES['defocus']}\n\n"
        + table(["defocus, um", "unexplained", "what the Model says unasked"], rows)
        + f"\n\nTrained at {1e6 * found['own']:.2f} um on labyrinths, {found['steps']} steps of "
        f"{study_parts.BATCH_SIZE}; per patch, probe-weighted, constant removed."
    )


SECTIONS: dict[str, Callable[[dict[str, Any], Path], str]] = {
    "dose": dose_section,
    "networks": networks_section,
    "engines": engines_section,
    "overlap": overlap_section,
    "samples": samples_section,
    "defocus": defocus_section,
}


def plot(path: Path, curves: dict[str, list[Any]], along: str) -> None:
    """Unexplained variance along something, both logarithmic."""
    figure, axes = new_figure(1, 1, panel=(6.0, 4.0))
    for name, points in curves.items():
        # What has no curve must be seen as well.
        axes[0, 0].plot(*zip(*sorted(points), strict=True), "D" if len(points) == 1 else ".-", label=name)
    axes[0, 0].set(xlabel=along, ylabel="unexplained phase variance", xscale="log", yscale="log")
    axes[0, 0].grid(True, which="both", alpha=0.3)
    axes[0, 0].legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize="small")
    save_figure(path, figure)


if __name__ == "__main__":
    main()
