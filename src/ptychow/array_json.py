"""Small arrays as fields of pydantic models: checked in Python, compressed base64 text in JSON."""

from __future__ import annotations

import base64
import math
import zlib
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, PlainSerializer

LARGEST = 2**28  # bytes; a mask of 16k x 16k pixels


def array_to_json(array: NDArray[Any]) -> dict[str, Any]:
    """Type, shape and zlib-compressed bytes (base64, C order) of an array of numbers or booleans."""
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes()))
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": data.decode("ascii")}


def array_from_json(content: dict[str, Any]) -> NDArray[Any]:
    """The array of `array_to_json`. Raises ValueError for anything else."""
    try:
        dtype, shape = np.dtype(str(content["dtype"])), tuple(int(length) for length in content["shape"])
        packed = base64.b64decode(content["data"], validate=True)
        size = dtype.itemsize * math.prod(shape)
        if dtype.kind not in "biuf" or min(shape, default=0) < 0 or size > LARGEST:
            raise ValueError(f"not a small array of numbers ({dtype}, shape {shape})")
        # No more than announced is ever unpacked, however much the text would give.
        unpacked = zlib.decompressobj().decompress(packed, size + 1)
    except (KeyError, TypeError, zlib.error) as error:
        raise ValueError(f"not an array ({error})") from None
    if len(unpacked) != size:
        raise ValueError(f"not an array of {dtype} numbers of shape {shape}")
    return np.frombuffer(unpacked, dtype).reshape(shape)


def _validate(value: Any) -> NDArray[Any]:
    array = array_from_json(value) if isinstance(value, dict) else np.array(value)
    array.setflags(write=False)
    return array


JsonArray = Annotated[NDArray[Any], BeforeValidator(_validate), PlainSerializer(array_to_json)]
