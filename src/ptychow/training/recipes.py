"""The two training recipes, as validated settings that travel into the Model file."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ptychow.errors import InputError


class Recipe(BaseModel):
    """How a network is trained. Unknown fields are refused.

    loss: "uniform" (mean absolute error of amplitude plus of phase, every pixel alike, absolute phases), "weighted"
        (the same weighted by the probe's intensity) or
        "complex" (absolute error of the complex patch weighted by the probe's intensity, after removing the constant
        phase between prediction and label).
    transform, threshold, scale, standardise: the network input, see `ptychow.detector.Preparation`. Standardised with
        the training frames' mean input and deviation, a network sees what tells frames apart and not the beam that all
        have in common: without it W3 does not leave its plateau on weakly scattering samples.
    amplitude_max: largest amplitude the head can give; 1 means that labels are divided by their largest amplitude.
    scale_jitter: standard deviation of the random factor (its logarithm) on each input, so that the count rate is not
        baked in.
    schedule: "constant", "one-cycle" (up to `learning_rate` and down to nothing; Smith & Topin, arXiv:1708.07120) or
        "cyclic" (the PtychoNN notebooks': triangular2 between a tenth of the rate and the rate, half a cycle in six
        epochs).
    virtual: part of each batch that comes from virtual scan points (`ptychow.training.virtual`), not measured ones;
        with 1 nothing is measured: all is simulated.
    steps_per_epoch: steps of an epoch where all is simulated; otherwise it ends when every measured frame came once.
    physics: compare measured with predicted diffraction too (`ptychow.training.physics`), by this mismatch; with
        `physics_weight` beside the labels' loss, or, where `virtual` is 1 and nothing is simulated, alone.
    keep: "best" weights by validation loss (where there is validation), or the "last".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    loss: Literal["uniform", "weighted", "complex"]
    transform: Literal["raw", "sqrt"]
    threshold: float = Field(ge=0)
    scale: Literal["scan", "none"]
    standardise: bool
    amplitude_max: float = Field(gt=0)
    scale_jitter: float = Field(ge=0, le=1)
    virtual: float = Field(ge=0, le=1)
    optimizer: Literal["adam", "adamw", "muon"]
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    gradient_clip: float | None = Field(gt=0)
    schedule: Literal["constant", "one-cycle", "cyclic"]
    batch_size: int = Field(ge=1)
    epochs: int = Field(ge=1)
    steps_per_epoch: int = Field(default=50, ge=1)
    physics: Literal["amplitude", "poisson"] | None = None
    physics_weight: float = Field(default=1.0, gt=0)
    keep: Literal["best", "last"]

    @property
    def measured_per_batch(self) -> int:
        """How many of a batch are measured frames; at least one, unless all is simulated."""
        return 0 if self.virtual == 1 else max(1, self.batch_size - round(self.virtual * self.batch_size))


RECIPES = {
    recipe.name: recipe
    for recipe in (
        # The default: what is known to work on measured scans.
        Recipe(
            name="ptychow",
            loss="complex",
            transform="sqrt",
            threshold=0,
            scale="scan",
            standardise=True,
            amplitude_max=2,
            scale_jitter=0.05,
            virtual=0.5,
            optimizer="muon",
            learning_rate=2e-3,
            weight_decay=0.01,
            gradient_clip=1.0,
            schedule="one-cycle",
            batch_size=8,
            epochs=60,
            keep="best",
        ),
        # Xing et al. 2024. Stated in the paper: MAE, Adam, initial rate 1e-3, 60 epochs. Inferred (from the PtychoNN
        # notebooks and Table 5's FLOPs): sum of the two errors, batch 64, constant rate, best weights, counts below 3
        # to 0.
        Recipe(
            name="paper",
            loss="uniform",
            transform="raw",
            threshold=3,
            scale="none",
            standardise=False,
            amplitude_max=1,
            scale_jitter=0,
            virtual=0,
            optimizer="adam",
            learning_rate=1e-3,
            weight_decay=0,
            gradient_clip=None,
            schedule="constant",
            batch_size=64,
            epochs=60,
            keep="best",
        ),
    )
}

# Without labels: simulated samples seen through one instrument. Rate as known to work on a measured scan; batch and
# steps by what two cores can do in a quarter of an hour; the standardised input as in the default recipe.
LABEL_FREE = RECIPES["ptychow"].model_copy(
    update={
        "name": "label-free",
        "amplitude_max": 1.5,
        "virtual": 1,
        "batch_size": 32,
        "epochs": 80,
        "keep": "last",
    }
)

# After that: what the patches leave unexplained of the scan's own frames, without labels too. Four epochs of 50 steps.
DIFFRACTION = RECIPES["ptychow"].model_copy(
    update={
        "name": "diffraction",
        "virtual": 1,
        "physics": "amplitude",
        "learning_rate": 5e-4,
        "epochs": 4,
        "keep": "last",
    }
)


def recipe_named(name: str, **changes: object) -> Recipe:
    """The recipe `name` with some fields changed (None means unchanged).

    Raises InputError for an unknown name or field, or a value that makes no sense.
    """
    if name not in RECIPES:
        raise InputError("unknown recipe", field="recipe", found=name, expected=", ".join(RECIPES))
    changed = {field: value for field, value in changes.items() if value is not None}
    try:
        return Recipe.model_validate({**RECIPES[name].model_dump(), **changed})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(first["msg"], field=".".join(map(str, first["loc"])), found=first["input"]) from None
