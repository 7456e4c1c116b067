"""Training: labelled scans to a Model. `train` is the whole of it; its parts are here for those who need them."""

from ptychow.training.fit import History, interrupted_recipe, steps_per_epoch
from ptychow.training.label_free import calibrate
from ptychow.training.recipes import DIFFRACTION, LABEL_FREE, RECIPES, Recipe, recipe_named
from ptychow.training.run import Trained, train
from ptychow.training.split import Split, no_split, random_split, shares_pixels, spatial_split, split_scan

__all__ = [
    "DIFFRACTION",
    "LABEL_FREE",
    "RECIPES",
    "History",
    "Recipe",
    "Split",
    "Trained",
    "calibrate",
    "interrupted_recipe",
    "no_split",
    "random_split",
    "recipe_named",
    "shares_pixels",
    "spatial_split",
    "split_scan",
    "steps_per_epoch",
    "train",
]
