"""EPICS NTNDArray, both ways: what areaDetector publishes of a frame, and what that means here.

ADCore (NDPluginCodec, ntndArrayConverter) is the authority: `dimension` begins with the fastest axis; compressed data
are bytes, `codec.name` says how, and `codec.parameters` what the numbers were: the ordinal of a pvData scalar type
(NDPluginPva), or that of an NDArray data type (NDPluginPvxs). The stated size decides between the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ptychow.errors import MissingExtraError
from ptychow.live.codecs import CodecError, frame_bytes
from ptychow.live.records import EncodedFrame, FrameRecord

try:
    from p4p import Value
    from p4p.nt import NTNDArray
except ImportError:
    raise MissingExtraError("EPICS pvAccess", "live") from None

TYPE = NTNDArray.buildType()
UNION_FIELDS = {
    **{"int8": "byteValue", "int16": "shortValue", "int32": "intValue", "int64": "longValue"},
    **{"uint8": "ubyteValue", "uint16": "ushortValue", "uint32": "uintValue", "uint64": "ulongValue"},
    **{"float32": "floatValue", "float64": "doubleValue"},
}
EPICS_EPOCH = 631_152_000  # 1990-01-01 in seconds since 1970: when EPICS' clock begins, and what it shows if never set
# Numbered from 0; pvData's first is the boolean, which no detector sends.
SCALAR_TYPES = (None, "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
NDARRAY_TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")


def read_frame(value: Value, index: int, received_at: float, series: int) -> FrameRecord | EncodedFrame:
    """The frame in an NTNDArray. Raises CodecError where it holds none, or does not say what it holds."""
    data = value["value"]
    if not isinstance(data, np.ndarray):
        raise CodecError("an NTNDArray without an image")
    shape = read_shape(value["dimension"])
    codec = value["codec.name"]
    if not codec:
        size = frame_bytes(shape, data.dtype)
        if data.nbytes != size:
            raise CodecError(f"{data.nbytes} bytes where {shape} of {data.dtype} has {size}")
        return FrameRecord(index, data.reshape(shape), received_at, series)
    dtype = read_type(value["codec.parameters"], value["uncompressedSize"], shape)
    frame_bytes(shape, dtype)
    stored, stated = data.data.cast("B"), int(value["compressedSize"])
    if not 0 < stated <= len(stored):
        raise CodecError(f"{len(stored)} bytes where {stated} are stated")
    return EncodedFrame(index, stored[:stated], codec, shape, dtype, received_at, series)


def read_shape(dimensions: Sequence[Value]) -> tuple[int, int]:
    """(H, W) of an image, a colour image's refused."""
    sizes = [int(dimension["size"]) for dimension in dimensions]
    # Some drivers send a single image as a stack of one.
    while len(sizes) > 2 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) != 2:
        raise CodecError(f"not one grey image: {len(sizes)} dimensions of {sizes}")
    return sizes[1], sizes[0]


def read_type(ordinal: Any, size: int, shape: tuple[int, int]) -> np.dtype[Any]:
    """The dtype of compressed data: a scalar type's ordinal, or an NDArray's where only that fits the stated size."""
    if not isinstance(ordinal, int) or ordinal < 0:
        raise CodecError(f"codec.parameters do not say the data type ({str(ordinal)[:40]})")
    for types in (SCALAR_TYPES, NDARRAY_TYPES):
        name = types[ordinal] if ordinal < len(types) else None
        if name is not None and np.dtype(name).itemsize * shape[0] * shape[1] == size:
            return np.dtype(name)
    raise CodecError(f"data type {ordinal} does not give {size} bytes for {shape}")


def read_attributes(value: Value, names: Sequence[str]) -> list[float]:
    """The numbers of the attributes `names`. Raises CodecError where one is missing or no number."""
    found = {attribute["name"]: attribute["value"] for attribute in value["attribute"]}
    try:
        return [float(found[name]) for name in names]
    except KeyError as error:
        raise CodecError(f"no attribute {error}, but {', '.join(found)[:200]}") from None
    except (TypeError, ValueError):
        raise CodecError(f"attributes {', '.join(names)} are not numbers") from None


def read_time(value: Value) -> float:
    """When that was, in seconds since 1970 by the sender's clock, or `EPICS_EPOCH` where it never set it; 0 where
    nothing is told.

    `timeStamp` is what EPICS sets. `dataTimeStamp` is the detector driver's own affair: some count from their boot, so
    that it is read only where the other one was never set.
    """
    told = [_seconds(value, field) for field in ("timeStamp", "dataTimeStamp")]
    return next((seconds for seconds in told if seconds not in (0.0, EPICS_EPOCH)), told[0])


def _seconds(value: Value, field: str) -> float:
    return value.get(f"{field}.secondsPastEpoch", 0) + 1e-9 * value.get(f"{field}.nanoseconds", 0)


def build(
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    data: bytes,
    codec: str,
    unique_id: int,
    nanoseconds: int,
    attributes: Mapping[str, float] | None = None,
) -> Value:
    """The NTNDArray that areaDetector's NDPluginPva would publish of a frame whose bytes are `data` in `codec`.

    nanoseconds: since 1970, when it was taken.
    """
    packed = codec != "none"
    seconds, nanoseconds = divmod(nanoseconds, 1_000_000_000)
    content: dict[str, Any] = {
        "value": (UNION_FIELDS["uint8" if packed else dtype.name], np.frombuffer(data, np.uint8 if packed else dtype)),
        "codec.name": codec if packed else "",
        "codec.parameters": SCALAR_TYPES.index(dtype.name),
        "compressedSize": len(data),
        "uncompressedSize": shape[0] * shape[1] * dtype.itemsize,
        "uniqueId": unique_id,
        "dimension": [{"size": size, "fullSize": size, "binning": 1} for size in reversed(shape)],
        "attribute": [{"name": name, "value": number} for name, number in (attributes or {}).items()],
    }
    for field in ("dataTimeStamp", "timeStamp"):
        content |= {f"{field}.secondsPastEpoch": seconds, f"{field}.nanoseconds": nanoseconds}
    return Value(TYPE, content)
