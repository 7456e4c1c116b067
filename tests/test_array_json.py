import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import BaseModel, ConfigDict, ValidationError

from ptychow.array_json import JsonArray, array_from_json, array_to_json

numbers = st.sampled_from([np.bool_, np.uint8, np.int64, np.float32, np.float64]).map(np.dtype)


class Holder(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    array: JsonArray


@given(hnp.arrays(numbers, hnp.array_shapes(min_dims=0, min_side=0)))
def test_round_trip(array):
    again = Holder.model_validate_json(Holder(array=array).model_dump_json()).array
    assert again.dtype == array.dtype and again.shape == array.shape and again.tobytes() == array.tobytes()


def test_a_field_is_a_copy_that_cannot_be_changed():
    array = np.zeros(3)
    held = Holder(array=array).array
    array[0] = 1
    assert held[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        held[0] = 2


def test_a_large_mask_takes_little_room():
    mask = np.ones((2048, 2048), bool)
    mask[1000:1037] = False
    assert len(json.dumps(array_to_json(mask))) < 20_000


@pytest.mark.parametrize(
    "change",
    [
        {"data": "not base64!"},
        {"data": "AAAA"},
        {"shape": [4, 4]},
        {"shape": [2, 2]},
        {"shape": [-1]},
        {"shape": [2**20, 2**20]},
        {"shape": "three"},
        {"dtype": "object"},
        {"dtype": "no type"},
        {"dtype": None},
    ],
)
def test_damaged_arrays_are_refused(change):
    content = {**array_to_json(np.arange(3)), **change}
    with pytest.raises(ValueError, match=r".+"):
        array_from_json(content)
    with pytest.raises(ValidationError):
        Holder(array=content)


def test_a_missing_part_is_refused():
    with pytest.raises(ValueError, match="data"):
        array_from_json({"dtype": "<f4", "shape": [3]})
