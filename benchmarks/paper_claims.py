"""Which of the paper's claims held, in sentences computed from the numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import mean

from paper_networks import LEARNERS
from paper_plan import CHANGES, Scale, Training, longer, scaling, trials
from paper_results import COMPLEX_ERROR, HEADLINE, LEARNT, PUBLISHED, TARGETS, Results, is_imitated, number, step_curve

# An error below this part of the least one before is still falling; precisions nearer than that do not differ.
FALLING = 0.9

Judged = tuple[str, str]  # the verdict, and what it rests on


def claims(results: Results) -> str:
    """The section: one line a claim, leak-free block, the paper's recipe."""
    judged = [(claim, judge(results)) for claim, judge in CLAIMS]
    lines = [f"* *{claim}* {'Not trained yet.' if found is None else ' '.join(found)}" for claim, found in judged]
    lines += targets(results)
    return "## The paper's claims\n\nOn the leak-free block, `paper` recipe.\n\n" + "\n".join(lines)


def better(network: str) -> Callable[[Results], Judged | None]:
    """Judges that the network leaves less unexplained than PtychoNN, both intervals below 1."""

    def judge(results: Results) -> Judged | None:
        ratio = results.ratio(network, "paper", "leak-free")
        if ratio is None:
            return None
        seeds = f"{len(ratio.values)} seed{'s' if len(ratio.values) > 1 else ''}"
        said = f"the ratio to PtychoNN is {ratio.mean:.2f} ({seeds})"
        if not ratio.learnt:
            return "Cannot be judged:", f"PtychoNN itself leaves {ratio.baseline:.2f} (more than {LEARNT:.2f}); {said}."
        intervals = [pair for pair in (ratio.over_seeds, ratio.over_places) if pair is not None]
        if len(ratio.values) < 2:
            return "One seed cannot tell:", f"{said}."
        above, below = all(low > 1 for low, _ in intervals), all(high < 1 for _, high in intervals)
        verdict = "Held:" if below else "Did not hold:" if above else "Undecided:"
        return verdict, f"{said}; intervals {' and '.join(f'{low:.2f} to {high:.2f}' for low, high in intervals)}."

    return judge


def training_time(results: Results) -> Judged | None:
    return _less(results, lambda run: run["cpu_seconds"], "w1", "processor seconds of training")


def inference_time(results: Results) -> Judged | None:
    return _less(results, lambda run: run["cost"]["milliseconds_a_pattern"]["fp32"], "w3", "ms a pattern in float32")


def _less(results: Results, value: Callable[[dict], float | None], network: str, unit: str) -> Judged | None:
    found = []
    for name in (network, "ptychonn"):
        values = [value(run) for run in results.seeds(name, "paper").values()]
        found.append([number for number in values if number is not None])
    if not all(found):
        return None
    ours, theirs = map(mean, found)
    verdict = "Held here:" if ours < theirs else "Did not hold here:"
    return verdict, f"{ours:.3g} against {theirs:.3g} {unit}, one thread of a CPU."


def fewer_steps(results: Results) -> Judged | None:
    """Whether W1 is ahead of PtychoNN at every milestone."""
    curves = [dict(step_curve(results.seeds(name, "paper"))) for name in ("w1", "ptychonn")]
    common = sorted(curves[0].keys() & curves[1].keys())
    if not common:
        return None
    pairs = [(mean(curves[0][steps]), mean(curves[1][steps])) for steps in common]
    ahead = sum(ours < theirs for ours, theirs in pairs)
    verdict = "Held:" if ahead == len(pairs) else "Did not hold:" if ahead == 0 else "In part:"
    numbers = ", ".join(
        f"{ours:.2f} against {theirs:.2f} at {s:.0f}" for s, (ours, theirs) in zip(common, pairs, strict=True)
    )
    return verdict, f"W1 against PtychoNN, by steps: {numbers}."


def fewer_patterns(results: Results) -> Judged | None:
    """Whether W1 is ahead of PtychoNN, with every seed, at every size of the training set that has several."""
    pairs = {}
    for training in {Training("w1", seed=seed, lines=lines) for seed in range(3) for lines in range(1, 161)}:
        ours = results.of(training)
        theirs = results.of(Training("ptychonn", seed=training.seed, lines=training.lines))
        if ours and theirs:
            pairs.setdefault(training.lines, []).append((number(ours), number(theirs)))
    if not pairs:
        return None
    ahead = {lines: [ours < theirs for ours, theirs in found] for lines, found in pairs.items() if len(found) > 1}
    verdict = "Undecided:" if ahead else "One seed cannot tell:"
    if ahead and all(map(all, ahead.values())):
        verdict = "Held:"
    elif ahead and not any(map(any, ahead.values())):
        verdict = "Did not hold:"
    said = []
    for lines, found in sorted(pairs.items()):
        ours, theirs = map(mean, zip(*found, strict=True))
        seeds = f"{sum(ahead[lines])} of {len(found)} seeds ahead" if lines in ahead else "one seed"
        said.append(f"{lines} lines: {ours:.3f} against {theirs:.3f} ({seeds})")
    return verdict, "; ".join(said) + "."


def scalable(results: Results) -> Judged | None:
    """Whether larger W-Nets of one rule are better: every step of the curve, and end to end."""
    found = [(run["cost"]["parameters"], number(run)) for t in scaling() if (run := results.of(t)) is not None]
    if len(found) < 4:
        return None
    falls = sum(later < earlier for (_, earlier), (_, later) in pairwise(found))
    verdict = "Held:" if falls == len(found) - 1 else "In part:" if found[-1][1] < found[0][1] else "Did not hold:"
    listed = ", ".join(f"{value:.2f} with {parameters / 1e6:.2f} M" for parameters, value in found)
    return verdict, f"{listed}; one seed, better at {falls} of {len(found) - 1} enlargements."


def trained_longer(results: Results, network: str, lines: int | None) -> str | None:
    """How the network compares with PtychoNN after three times the steps on so many lines."""
    pair = [results.of(Training(name, lines=lines, times=3)) for name in (network, "ptychonn")]
    if None in pair:
        return None
    (ours, theirs) = (step_curve({0: run}) for run in pair if run is not None)
    (our_map, their_map) = (number(run, name=COMPLEX_ERROR) for run in pair if run is not None)
    (our_best, their_best) = (min(error for _, (error,) in curve) for curve in (ours, theirs))
    (our_end, their_end) = (curve[-1][1][0] for curve in (ours, theirs))
    title = LEARNERS[network].title
    where = "On the same lines" if lines is None else f"On {lines} lines"
    ends = {title: (our_end, our_best), "PtychoNN": (their_end, their_best)}
    overfit = [name for name, (end, best) in ends.items() if end > 1.2 * best]
    told = "Neither overfits."
    if overfit:
        told = f"{' and '.join(overfit)} overfit{'s' if len(overfit) == 1 else ''}; the validation frames, which show "
        told += "the same object, do not tell, so that the recipe keeps late weights."
    if our_end < FALLING * min(error for _, (error,) in ours[:-1]):
        told += f" {title}'s error is still falling."
    return (
        f"* {where}, {ours[-1][0]:.0f} steps: {title} {our_end:.3f}, PtychoNN {their_end:.3f} (ratio "
        f"{our_end / their_end:.2f}); at their best milestones {our_best:.3f} and {their_best:.3f}. {told} "
        f"Of the complex map, amplitude and phase, {title} leaves {our_map / their_map:.2f} of PtychoNN's error."
    )


def reasons(results: Results, scale: Scale) -> str:
    """Why W1 and W3 are not ahead, as far as trainings that were made to find out tell."""
    several = dict.fromkeys(training.lines for training in longer(scale))
    said = [line for lines in several for network in ("w1", "w3") if (line := trained_longer(results, network, lines))]
    if not said:
        return ""
    pair = [results.of(Training("w1", precision=precision)) for precision in ("bf16", "fp32")]
    if None not in pair:
        half, full = (number(run) for run in pair if run is not None)
        verdict = "not the precision" if FALLING < full / half < 1 / FALLING else "the precision matters"
        said.append(f"* In float32 instead of bfloat16 W1 leaves {full:.3f} instead of {half:.3f}: {verdict}.")
    said += amplitudes_learnt(results) + tried(results)
    return (
        "## What was tried to find out why\n\nOne seed each, `paper` recipe, most three times as long; see below.\n\n"
        + "\n".join(said)
        + "\n\nHow we read this: neither length nor data nor precision nor the amplitude explains W1's ratio. What is "
        "left: the paper's data, whose amplitude hardly varies, and its W1, of which ours is a reconstruction."
    )


def amplitudes_learnt(results: Results) -> list[str]:
    """Whether W1 is ahead where PtychoNN has learnt the amplitude, and where it has not."""
    ours, theirs = (results.seeds(network, "paper") for network in ("w1", "ptychonn"))
    cases: dict[bool, list[str]] = {True: [], False: []}
    for seed in sorted(ours.keys() & theirs.keys()):
        flat = number(theirs[seed], name="amplitude_mse", of="patches_flat")
        learnt = number(theirs[seed], name="grid_amplitude_mse") < flat
        phase, both = (number(ours[seed], name=n) / number(theirs[seed], name=n) for n in (HEADLINE, COMPLEX_ERROR))
        cases[learnt].append(f"seed {seed}: {phase:.2f} by the phase, {both:.2f} by the complex map")
    said = []
    if cases[False]:
        said.append(
            "* PtychoNN's amplitude can stay where it began, worse than a flat one, and the network then has all of "
            "itself for the phase, which alone the headline counts (*Amplitude and phase together*). W1's ratios: "
            f"{'; '.join(cases[False])}."
        )
    if cases[True]:
        said.append(f"* Where PtychoNN learns both: {'; '.join(cases[True])}.")
    return said


def tried(results: Results) -> list[str]:
    """What a recipe that differs in one thing gives, and one that differs in all; initial weights; statistics."""
    words = {
        "one-cycle": "Schedule: with one cycle up to the same rate and down to nothing",
        "standardised": "Input: with root counts, standardised, instead of raw ones",
    }
    said = [
        f"* {words[change]} {' and '.join(found)}."
        for change in CHANGES
        if (found := list(filter(None, (against_plain(results, t) for t in trials() if t.change == change))))
    ]
    initial = against_plain(results, Training("w1-no-initial-weights"))
    said += [f"* Initial weights: {initial}."] if initial else []
    ratio = results.ratio("w1", "ptychow", "leak-free")
    if ratio is not None:
        said.append(
            "* Schedule, input, loss, optimizer and training data all at once (recipe `ptychow`): W1 and PtychoNN both "
            f"leave less; the ratio is {ratio.mean:.2f} ({len(ratio.values)} seeds)."
        )
    return said + statistics_anew(results)


def against_plain(results: Results, training: Training) -> str | None:
    """The headline beside that of the plain training in the same precision."""
    run = results.of(training)
    if run is None:
        return None
    plain = Training("w1" if training.network.startswith("w1") else training.network)
    full = results.of(replace(plain, precision="fp32")) if is_imitated(run) else None
    beside = full or results.of(plain)
    said = f"{LEARNERS[training.network].title} leaves {number(run):.3f}"
    if beside is None:
        return said
    return f"{said} instead of {number(beside):.3f}" + (" (that in bfloat16)" if is_imitated(run) and not full else "")


def statistics_anew(results: Results) -> list[str]:
    """What batch norms' statistics cost that run behind the weights."""
    changes = [
        found / number(run) - 1
        for run in results.runs.values()
        if run["training"]["network"].startswith("w1") and (found := run.get("statistics_anew")) is not None
    ]
    if not changes:
        return []
    return [
        "* Batch norm: with statistics taken anew over training frames, instead of running ones, W1's trainings leave "
        f"{100 * min(changes):+.0f} % to {100 * max(changes):+.0f} % more ({len(changes)} trainings)."
    ]


CLAIMS: Sequence[tuple[str, Callable[[Results], Judged | None]]] = (
    ("W1 reconstructs better than PtychoNN from the same data (ratio 0.861).", better("w1")),
    ("W2 reconstructs better still (ratio 0.651).", better("w2")),
    ("W3, with 8 % of PtychoNN's parameters, is as precise (ratio 0.912).", better("w3")),
    ("W1 trains in less time than PtychoNN.", training_time),
    ("W3 infers faster than PtychoNN.", inference_time),
    ("W1 is ahead at every length of training.", fewer_steps),
    ("W1 is ahead with fewer training patterns.", fewer_patterns),
    ("The W-Net is scalable.", scalable),
)


def targets(results: Results) -> list[str]:
    """Whether our targets for the ratios are met, where they can be judged."""
    lines = []
    for network, target in TARGETS.items():
        ratio = results.ratio(network, "paper", "leak-free")
        if ratio is None:
            said = "not trained yet"
        elif not ratio.learnt:
            said = "PtychoNN has not learnt enough for a ratio"
        else:
            said = f"{'reached' if ratio.mean <= target else 'missed'} with {ratio.mean:.2f}"
        published = PUBLISHED[network][3] / PUBLISHED["ptychonn"][3]  # type: ignore[operator]
        lines.append(
            f"* Our target for {LEARNERS[network].title}: {target:.2f} (the paper's ratio: {published:.3f}): {said}."
        )
    return lines
