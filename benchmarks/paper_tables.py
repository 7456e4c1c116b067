"""The tables of the paper benchmark's page, in Markdown. What has not been trained is said to be missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean

from paper_networks import LEARNERS, WIDTHS
from paper_plan import LOSSES, Scale, Training, ablation, at_size, controls, longer, scaling
from paper_results import (
    BASELINE_RUNS,
    BLOCKS,
    COMPLEX_ERROR,
    HEADLINE,
    LEARNT,
    PUBLISHED,
    PUBLISHED_POINTS,
    TABLE,
    TARGETS,
    Ratio,
    Results,
    Run,
    average,
    is_imitated,
    number,
    step_curve,
    steps_since_best,
    timed_alike,
)
from paper_run import BLOCK, POINTS
from ptychow.metrics import psnr
from ptychow.words import counted

MISSING = "not trained yet"


def headline(results: Results) -> str:
    parts = ["## Headline: unexplained phase variance"]
    for block in BLOCKS:
        rows = []
        for recipe in ("paper", "ptychow"):
            for network in TABLE:
                runs = results.seeds(network, recipe)
                cells = [recipe, LEARNERS[network].title, str(len(runs)) if runs else MISSING]
                if runs:
                    ratio = results.ratio(network, recipe, block)
                    cells += [spread([number(run, block) for run in runs.values()]), *ratio_cells(ratio, network)]
                    flat = [number(run, block, "flat_phase_unexplained_variance") for run in runs.values()]
                    cells.append(f"{mean(flat):.2f}")
                rows.append(cells)
        heads = ["recipe", "network", "seeds", "mean (range)", "ratio to PtychoNN", "t, seeds", "bootstrap, places"]
        parts.append(f"### The {block} block\n\n" + table([*heads, "paper, target", "flat"], rows))
    parts.append(
        "Ratios are paired by seed. *t*: Student's 95 % interval over seeds; *bootstrap*: 95 % over blocks of "
        f"{BLOCK} x {BLOCK} points, drawn with replacement. A ratio in brackets is no result: PtychoNN itself leaves "
        f"more than {LEARNT:.2f} unexplained there, so that it compares with a baseline that has not learnt yet."
    )
    return "\n\n".join(parts)


def ratio_cells(ratio: Ratio | None, network: str) -> list[str]:
    """Ratio, its two intervals, and the paper's ratio with our target."""
    if ratio is None:
        return ["1" if network == "ptychonn" else "-", "", "", ""]
    value = f"{ratio.mean:.2f}" if ratio.learnt else f"({ratio.mean:.2f})"
    intervals = [
        f"{pair[0]:.2f} to {pair[1]:.2f}" if pair else "one seed" for pair in (ratio.over_seeds, ratio.over_places)
    ]
    if network not in PUBLISHED:
        return [value, *intervals, "-"]
    published = PUBLISHED[network][3] / PUBLISHED["ptychonn"][3]  # type: ignore[operator]
    return [value, *intervals, f"{published:.3f}, {TARGETS[network]:.2f}"]


def whole_map(results: Results) -> str:
    """Amplitude and phase of the headline's map together, and whether the amplitude was learnt at all."""
    rows = []
    for recipe in ("paper", "ptychow"):
        baseline = results.seeds("ptychonn", recipe)
        for network in TABLE:
            runs = results.seeds(network, recipe)
            common = sorted(runs.keys() & baseline.keys())
            errors = {seed: number(run, name=COMPLEX_ERROR) for seed, run in runs.items()}
            theirs = {seed: number(run, name=COMPLEX_ERROR) for seed, run in baseline.items()}
            ratios = ", ".join(f"{errors[seed] / theirs[seed]:.2f}" for seed in common)
            amplitudes = [number(run, name="grid_amplitude_mse") for run in runs.values()]
            cells = [spread(list(errors.values())), ratios, ", ".join(map(digits, amplitudes))] if runs else [MISSING]
            rows.append([recipe, LEARNERS[network].title, *cells])
    flat = [number(run, name="amplitude_mse", of="patches_flat") for run in results.runs.values()]
    worse = f"A flat amplitude errs by {digits(mean(flat))}: what errs by more has not learnt it. " if flat else ""
    heads = ["recipe", "network", "complex error, mean (range)", "ratio to PtychoNN, by seed", "amplitude MSE, by seed"]
    return (
        "## Amplitude and phase together\n\n"
        + table(heads, rows)
        + "\n\nOf the headline's map, leak-free block: mean |image - truth|^2 over mean |truth|^2. "
        + worse
        + "The headline, the phase alone, is kind to a network that spends nothing on the amplitude."
    )


def table5(results: Results) -> str:
    """Tables 4 and 5: the paper's block by the paper's metric, ours above the paper's own row."""
    heads = ["", "parameters", "FLOPs G", "MACs M", "MSE amplitude", "MSE phase", "(floors)"]
    heads += ["PSNR amplitude", "PSNR phase 255", "2 pi", "SSIM amplitude", "SSIM phase 255", "2 pi"]
    heads += ["EVA phase", "offset rad", "ms, fp32/bf16", "training s"]
    rows = []
    for network in TABLE:
        for recipe in ("paper", "ptychow"):
            runs = results.seeds(network, recipe)
            title = f"{LEARNERS[network].title}, `{recipe}`"
            rows.append([title, *table5_cells(runs)] if runs else [title, MISSING])
        if network in PUBLISHED:
            rows.append([f"*{LEARNERS[network].title}, published*", *published_cells(network)])
    rows += [[f"*{name}*", *[""] * 3, *(digits(value) for value in pair)] for name, pair in BASELINE_RUNS.items()]
    return (
        "## Tables 4 and 5, on the paper's block\n\n"
        + table(heads, rows)
        + "\n\nMSE and PSNR are of the notebooks' metric, means over the seeds; SSIM, EVA and offset of the headline's "
        "map (the paper does not say of which). FLOPs by Table 5's counting rule, 64 patterns forward and backward; "
        "MACs of one pattern. Times are processor seconds of one thread of this machine; the paper's are of an RTX "
        "3060, its batch unknown. In italics: the paper's table, and the baseline's own runs in the public notebooks, "
        "on the measured data, whose amplitudes and labels differ from the twin's: compare ratios, not values."
    )


def table5_cells(runs: dict[int, Run]) -> list[str]:
    timed = timed_alike(runs)
    cost = next(iter((timed or runs).values()))["cost"]
    amplitude, phase = (average(runs, "paper", f"notebook_{part}_mse") for part in ("amplitude", "phase"))
    floors = [average(runs, "paper", f"notebook_{part}_floor") for part in ("amplitude", "phase")]
    shown = ("amplitude_ssim", "phase_ssim_255", "phase_ssim_2pi", "phase_explained_variance", "phase_offset")
    seconds = [run["cpu_seconds"] for run in timed.values() if run["cpu_seconds"] is not None]
    return [
        f"{cost['parameters']:,}",
        f"{cost['table5_flops'] / 1e9:.2f}",
        f"{cost['macs'] / 1e6:.0f}",
        digits(amplitude),
        digits(phase),
        " / ".join(map(digits, floors)),
        *(f"{value:.2f}" for value in (psnr(amplitude, 1), psnr(phase, 255), psnr(phase, 6.2832))),
        *(f"{average(runs, 'paper', f'grid_{name}'):.3f}" for name in shown),
        " / ".join(f"{value:.2f}" for value in cost["milliseconds_a_pattern"].values()) if timed else "-",
        f"{mean(seconds):.0f}" if seconds else "-",
    ]


def published_cells(network: str) -> list[str]:
    parameters, flops, *errors, milliseconds, seconds = PUBLISHED[network]
    mse, (psnr_a, psnr_p, ssim_a, ssim_p, eva) = errors[:2], errors[2:]
    shown = [f"{parameters:,.0f}", digits(flops), "", *map(digits, mse), "", digits(psnr_a), digits(psnr_p), ""]
    return [*shown, digits(ssim_a), digits(ssim_p), "", digits(eva), "", digits(milliseconds), digits(seconds)]


def single_shots(results: Results) -> str:
    """Tables 1 and 2."""
    heads = ["network", "recipe", "", *POINTS]
    rows = []
    for recipe in ("paper", "ptychow"):
        for network in TABLE:
            run = results.of(Training(network, recipe))
            for quantity, unit in POINT_ROWS.items() if run else ():
                if quantity == "phase_mse_as_predicted" and run["recipe"]["loss"] == "complex":
                    continue  # its constant means nothing
                values = [digits(run["blocks"]["points"][point][quantity]) for point in POINTS]
                rows.append([LEARNERS[network].title, recipe, unit, *values])
    for network, (amplitude, phase) in PUBLISHED_POINTS.items():
        title = f"*{LEARNERS[network].title}, published*"
        rows += [[title, "paper", "amplitude MSE", *map(digits, amplitude)]]
        rows += [[title, "paper", "phase MSE, as predicted", *map(digits, phase)]]
    return (
        "## Tables 1 and 2: single shots\n\n"
        + table(heads, rows)
        + "\n\nSeed 0. P1 to P4 are the middles of the leak-free block's four quarters, fixed by that rule; the "
        "paper's are four points that it does not name. The whole patch of 64 x 64 pixels counts, of which the beam "
        "lights a small part, with one constant removed except where it says *as predicted*."
    )


POINT_ROWS = {
    "phase_mse": "phase MSE",
    "phase_mse_as_predicted": "phase MSE, as predicted",
    "phase_psnr_255": "phase PSNR, 255",
    "phase_psnr_2pi": "phase PSNR, 2 pi",
    "phase_ssim_255": "phase SSIM, 255",
    "phase_ssim_2pi": "phase SSIM, 2 pi",
    "amplitude_mse": "amplitude MSE",
    "amplitude_psnr": "amplitude PSNR",
    "amplitude_ssim": "amplitude SSIM",
}


def against_steps(results: Results) -> str:
    """Table 3."""
    rows, heads = [], ["network"]
    for network in TABLE:
        runs = results.seeds(network, "paper")
        if not runs:
            rows.append([LEARNERS[network].title, MISSING])
            continue
        errors, similarities = (step_curve(runs, name) for name in (HEADLINE, "grid_phase_ssim_2pi"))
        heads = ["network", *(f"{steps:.0f} steps" for steps, _ in errors), "went on after its best validation"]
        pairs = zip(errors, similarities, strict=True)
        cells = [f"{mean(error):.3f} / {mean(similarity):.2f}" for (_, error), (_, similarity) in pairs]
        stood = [steps_since_best(run) for run in runs.values()]
        rows.append([LEARNERS[network].title, *cells, f"{min(stood):.0f}-{max(stood):.0f} steps"])
    return (
        "## Table 3: against steps\n\n"
        + table(heads, rows)
        + "\n\n`paper` recipe, leak-free block, unexplained variance / SSIM (range 2 pi), mean over the seeds, the "
        "weights of the best validation loss so far: the rate is constant, so that the beginning of a training is a "
        "shorter training. The last column tells whether validation had stopped improving."
    )


def longer_training(results: Results, scale: Scale) -> str:
    """Table 3 goes on: one seed, three times as long, on the scale's lines and on all."""
    rows: list[list[str]] = []
    heads = ["network", "lines"]
    for training in longer(scale):
        run = results.of(training)
        lines = training.lines or scale.training_lines[1] - scale.training_lines[0]
        titles = [LEARNERS[training.network].title, str(lines)]
        if run is None:
            rows.append([*titles, MISSING])
            continue
        curve = [(steps, errors[0]) for steps, errors in step_curve({training.seed: run})]
        if len(heads) == 2:  # later rows differ by less than an epoch
            heads += [*(f"{steps:.0f} steps" for steps, _ in curve), "best validation loss", "after", "complex error"]
        losses = run["history"]["validation_loss"]
        together = number(run, name=COMPLEX_ERROR)
        best = f"{run['steps'] - steps_since_best(run):.0f} steps"
        rows.append([*titles, *(f"{error:.3f}" for _, error in curve), f"{min(losses):.3f}", best, f"{together:.3f}"])
    return (
        "## Longer training\n\n"
        + table(heads, rows)
        + "\n\n`paper` recipe, three times as long; leak-free block, unexplained variance, seed 0, the weights of the "
        "best validation loss so far. Trainings of their own: on the same lines they differ from Table 3's by chance "
        "alone where the steps are the same. The validation frames, drawn at random as in the paper, show the object "
        "of the training frames: a loss that falls on them while the error of the leak-free block rises is overfitting "
        "that this validation does not see."
    )


def against_size(results: Results, scale: Scale) -> str:
    """Figures 3 and 4."""
    columns = scale.columns[1] - scale.columns[0]
    rows = []
    for lines in scale.sizes:
        cells = [str(lines), f"{lines * columns:,}"]
        for training in at_size(scale, lines):
            runs = results.seeds(training.network, "paper", training.lines)
            cells.append(
                f"{spread([number(run) for run in runs.values()])}, {counted(len(runs), 'seed')}" if runs else MISSING
            )
        rows.append(cells)
    return (
        "## Figures 3 and 4: against the number of training patterns\n\n"
        + table(["lines", "patterns", *(LEARNERS[one.network].title for one in at_size(scale, scale.sizes[0]))], rows)
        + "\n\n`paper` recipe, leak-free block, the same number of steps at every size."
    )


def what_makes_the_difference(results: Results) -> str:
    losses = {"uniform": "uniform", "weighted": "probe-weighted", "complex": "probe-weighted, complex, constant-free"}
    crossed = {(training.network, training.loss or "uniform"): training for training in ablation()}
    rows = [
        [LEARNERS[network].title, *(one(results, crossed[network, loss]) for loss in LOSSES)]
        for network in ("ptychonn", "ptychonn-bn", "w1")
    ]
    parts = [[LEARNERS[t.network].title, one(results, t)] for t in ablation() if t.network.startswith("w1-")]
    full = ["W1 in float32", one(results, controls()[-1])]
    return (
        "## What makes the difference\n\nLeak-free block, `paper` recipe but for what is named, one seed: differences "
        "of a tenth mean little.\n\n"
        + table(["network", *losses.values()], rows)
        + "\n\n"
        + table(["network, uniform loss", "unexplained"], [["W1", one(results, Training("w1"))], full, *parts])
        + "\n\nfloat32: where the processor has no bfloat16; compare these with W1 in float32."
    )


def size_of_network(results: Results) -> str:
    rows = []
    for width, training in zip(WIDTHS, scaling(), strict=True):
        run = results.of(training)
        settings = LEARNERS[training.network].settings
        shape = f"{settings['depths']}, {settings['dims']}" if settings else "W1"
        parameters = f"{run['cost']['parameters']:,}" if run else ""
        rows.append([str(width), shape, parameters, one(results, training)])
    return (
        "## Scaling: one rule, many sizes\n\n"
        + table(["width", "blocks, channels", "parameters", "unexplained"], rows)
        + "\n\nLeak-free block, `paper` recipe, one seed. Channels grow with the width, blocks with its root; width 24 "
        "is W1."
    )


def control(results: Results) -> str:
    mixed, *precise = controls()
    rows = [
        ["W3", one(results, Training("w3")), best_loss(results, Training("w3"))],
        ["W3, frames and labels shuffled: must score as flat", one(results, mixed), best_loss(results, mixed)],
        ["W1", one(results, Training("w1")), best_loss(results, Training("w1"))],
    ]
    for training in precise:
        title = f"{LEARNERS[training.network].title} in float32: must score as in bfloat16"
        rows.append([title, one(results, training), best_loss(results, training)])
    return (
        "## Controls\n\n"
        + table(["", "unexplained, leak-free", "best validation loss"], rows)
        + "\n\nSeed 0. At a constant rate the headline jumps from epoch to epoch by more than the loss."
    )


def best_loss(results: Results, training: Training) -> str:
    run = results.of(training)
    return MISSING if run is None else f"{min(run['history']['validation_loss']):.3f}"


def one(results: Results, training: Training) -> str:
    run = results.of(training)
    return MISSING if run is None else f"{number(run):.3f}{' (float32)' if is_imitated(run) else ''}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; short rows are filled up."""
    body = [[*row, *[""] * (len(heads) - len(row))] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, ["---"] * len(heads), *body])


def digits(value: float | None) -> str:
    """Three significant digits, or as many as the value has before the point."""
    return "" if value is None else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def spread(values: Sequence[float]) -> str:
    """Mean and range."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"
