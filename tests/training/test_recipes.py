import pytest
from pydantic import ValidationError

from ptychow.errors import InputError
from ptychow.training import RECIPES, Recipe, recipe_named


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_travels_as_json(name):
    recipe = recipe_named(name)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe == RECIPES[name]


def test_the_papers_recipe_is_the_papers():
    paper = RECIPES["paper"]
    assert (paper.loss, paper.transform, paper.scale) == ("uniform", "raw", "none")
    assert (paper.optimizer, paper.learning_rate, paper.epochs) == ("adam", 1e-3, 60)
    assert paper.amplitude_max == 1 and paper.scale_jitter == 0


def test_changes_are_taken_and_nothing_is_changed_by_none():
    recipe = recipe_named("paper", epochs=3, batch_size=None, keep="last")
    assert (recipe.epochs, recipe.batch_size, recipe.keep) == (3, RECIPES["paper"].batch_size, "last")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": -4}, "batch_size"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"schedule": "sawtooth"}, "schedule"),
        ({"speed": 3}, "speed"),
    ],
)
def test_values_that_make_no_sense_are_named(changes, field):
    with pytest.raises(InputError, match=f"{field}: .*found {next(iter(changes.values()))}"):
        recipe_named("ptychow", **changes)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(InputError, match="found fast, expected ptychow, paper"):
        recipe_named("fast")


def test_recipes_refuse_unknown_fields_and_cannot_be_changed():
    with pytest.raises(ValidationError):
        Recipe.model_validate({**RECIPES["paper"].model_dump(), "extra": 1})
    with pytest.raises(ValidationError):
        RECIPES["paper"].epochs = 5
