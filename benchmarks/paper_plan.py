"""What the paper benchmark trains, and in which order: what the headline tables need comes first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from paper_networks import MAIN, PARTS, WIDTHS
from ptychow.training import Recipe, recipe_named, steps_per_epoch


@dataclass(frozen=True)
class Scale:
    """Which part of the raster trains and tests, and for how long. Lines and columns: first, and one beyond the last.

    epochs: of the `paper` recipe on all training lines; every training takes as many steps as that one.
    sizes: numbers of training lines of the curve over the amount of data, the last lines each.
    leak_free: first line of the block that shares no object pixel with training.
    """

    name: str
    training_lines: tuple[int, int]
    epochs: int
    sizes: tuple[int, ...]
    columns: tuple[int, int] = (0, 161)
    test_lines: tuple[int, int] = (101, 161)
    test_columns: tuple[int, int] = (101, 161)
    leak_free: int = 121
    batch_size: int = 64

    @property
    def steps(self) -> int:
        """Of every training, before rounding to whole epochs."""
        lines, columns = (stop - start for start, stop in (self.training_lines, self.columns))
        pairs = lines * columns
        return self.epochs * ((pairs - round(VALIDATION * pairs)) // self.batch_size)


VALIDATION = 0.1
# What else the recipe could do; the rate stays. A cycle ends on its best weights.
CHANGES: dict[str, dict[str, object]] = {
    "one-cycle": {"schedule": "one-cycle", "keep": "last"},
    "standardised": {"transform": "sqrt", "threshold": 0, "scale": "scan", "standardise": True},
}
SCALES = {
    scale.name: scale
    for scale in (
        Scale("small", (75, 100), 24, (2, 5, 10, 17, 25)),
        Scale("full", (0, 100), 60, (5, 10, 20, 40, 70, 100)),
    )
}


@dataclass(frozen=True)
class Training:
    """One training. loss: in place of the recipe's. change: one of CHANGES. shuffled: frames and labels do not belong
    together.

    teacher: network whose plain training of this recipe and seed makes the labels. times: length, in the scale's steps.
    """

    network: str
    recipe: str = "paper"
    seed: int = 0
    lines: int | None = None
    loss: str | None = None
    precision: str = "bf16"
    shuffled: bool = False
    teacher: str | None = None
    times: int = 1
    change: str | None = None

    @property
    def name(self) -> str:
        """Of its JSON."""
        changes = [
            f"{self.lines}-lines" if self.lines else "",
            self.loss or "",
            self.change or "",
            self.precision if self.precision != "bf16" else "",
            "shuffled" if self.shuffled else "",
            f"from-{self.teacher}" if self.teacher else "",
            f"x{self.times}" if self.times > 1 else "",
        ]
        return "_".join([self.recipe, self.network, str(self.seed), *filter(None, changes)])

    @property
    def teaching(self) -> Training:
        """The teacher's training."""
        assert self.teacher is not None
        return replace(self, network=self.teacher, teacher=None)

    def settings(self, scale: Scale, pairs: int) -> Recipe:
        """The recipe for so many training pairs, with the scale's number of steps.

        Both recipes see batches of one size. The paper keeps the weights of the best validation loss; a rate that
        falls to nothing ends on its best weights.
        """
        recipe = recipe_named(self.recipe, batch_size=scale.batch_size, loss=self.loss)
        epochs = max(1, round(self.times * scale.steps / steps_per_epoch(pairs, recipe)))
        keep = {"epochs": epochs, "keep": "best" if self.recipe == "paper" else "last"}
        return recipe.model_copy(update=keep | CHANGES.get(self.change or "", {}))


def plan(
    scale: Scale, *, networks: Sequence[str] = MAIN, recipes: Sequence[str] = ("paper", "ptychow"), seeds: int = 3
) -> list[Training]:
    """The trainings in order of what they are needed for, each once."""
    wanted = [training for training in _ordered(scale, seeds) if training.recipe in recipes]
    kept = [training for training in wanted if training.network in networks or training.network not in MAIN]
    return list(dict.fromkeys(kept))


def _ordered(scale: Scale, seeds: int) -> Iterator[Training]:
    small = ("ptychonn", "w1", "w3")
    for recipe in ("paper", "ptychow"):
        yield from (Training(network, recipe, seed) for seed in range(seeds) for network in small)
    yield from (training for seed in range(seeds) for training in faster(seed))
    yield from (Training("w2", "paper", seed) for seed in range(seeds))
    yield from controls()
    yield from longer(scale)
    yield from trials()
    yield from ablation()
    yield from scaling()
    yield Training("w2", "ptychow")
    for seed in range(seeds):
        yield from (replace(training, seed=seed) for lines in scale.sizes for training in at_size(scale, lines))


def faster(seed: int) -> list[Training]:
    """W3-fast in both recipes, and taught by W1."""
    return [Training("w3f", seed=seed), Training("w3f", seed=seed, teacher="w1"), Training("w3f", "ptychow", seed)]


def controls() -> list[Training]:
    """Pairs shuffled, which must score as flat; and W3 and W1 in full precision, which must score as in bf16."""
    return [Training("w3", shuffled=True), Training("w3", precision="fp32"), Training("w1", precision="fp32")]


def longer(scale: Scale) -> list[Training]:
    """Three times the scale's steps, on its lines and on all lines before the test: what length and data change."""
    whole = scale.training_lines[1]
    sizes = [None] if scale.training_lines[0] == 0 else [None, whole]
    networks = ("ptychonn", "w1", "w3", "w3f")
    return [Training(network, lines=lines, times=3) for lines in sizes for network in networks]


def trials() -> list[Training]:
    """W1 and PtychoNN with a recipe that differs in one thing."""
    return [Training(network, change=change) for network in ("w1", "ptychonn") for change in CHANGES]


LOSSES = ("uniform", "weighted", "complex")


def ablation() -> list[Training]:
    """Three networks by three losses, and W1 with a part left out; otherwise the paper's recipe."""
    networks = ("ptychonn", "ptychonn-bn", "w1")
    crossed = [
        Training(network, loss=None if loss == "uniform" else loss) for loss in LOSSES[::-1] for network in networks
    ]
    return crossed + [Training(f"w1-no-{part}") for part in PARTS]


def scaling() -> list[Training]:
    """W-Nets of one rule, smallest first."""
    return [Training("w1" if width == 24 else f"w-{width}") for width in WIDTHS]


def at_size(scale: Scale, lines: int) -> list[Training]:
    """W1 and PtychoNN on so many lines; on all of them these are the table's own."""
    whole = lines == scale.training_lines[1] - scale.training_lines[0]
    return [Training(network, lines=None if whole else lines) for network in ("ptychonn", "w1")]
