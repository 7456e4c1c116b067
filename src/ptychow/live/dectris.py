"""The messages of Dectris' stream2, both ways: what a detector says in CBOR, and what that means here.

The layout is the published one (github.com/dectris/documentation: stream_v2, cbor/dectris-compression-tag.md): a map
with "type" start, image or end; numbers in typed arrays (RFC 8746: tags 64-87 within tag 40), their bytes possibly
compressed (tag 56500). Nothing in a message is believed: what does not fit becomes a Corrupt record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError, MissingExtraError
from ptychow.live.codecs import CodecError, decode, encode, frame_bytes
from ptychow.live.records import LARGEST_INDEX, Corrupt, EncodedFrame, End, Start
from ptychow.scan import Geometry

try:
    import cbor2
except ImportError:
    raise MissingExtraError("Dectris stream2", "live") from None

MULTIDIMENSIONAL, COMPRESSED = 40, 56500
CODEC_NAMES = {"bslz4": "bslz4hdf5", "lz4": "lz4hdf5"}
ANGSTROM = 1e-10
# What of the start message is worth keeping with the result.
PROVENANCE = (
    *("arm_date", "detector_description", "detector_serial_number", "series_unique_id", "sensor_material"),
    *("beam_center_x", "beam_center_y", "count_time", "frame_time", "incident_energy", "threshold_energy"),
)


class MessageError(ValueError):
    """A message does not say what it should."""


def read(
    message: bytes, received_at: float, *, channel: str | None = None, first: int = 0
) -> Start | EncodedFrame | End | Corrupt:
    """What a message says.

    channel: whose data are wanted where the detector has several thresholds; None: of the first.
    first: image_id of the frame that is index 0.
    """
    index = series = None
    try:
        content = _content(message)
        series = _whole(content, "series_id")
        kind = content.get("type")
        if kind == "start":
            return _start(content, series, channel, first)
        if kind == "end":
            return End(None, "end of series", series)
        if kind != "image":
            raise MessageError(f"a message of unknown type {_words(kind)}")
        number = _whole(content, "image_id") - first
        if not 0 <= number <= LARGEST_INDEX:
            raise MessageError(f"image_id {number + first} where the first frame is {first}")
        index = number
        return _frame(content, index, series, channel, received_at)
    except (MessageError, CodecError, InputError) as error:
        return Corrupt(index, f"stream2: {error}", series)


def _content(message: bytes) -> dict[str, Any]:
    try:
        content = cbor2.loads(message)
    except Exception as error:  # a hostile message can make a decoder raise almost anything
        raise MessageError(f"not CBOR ({' '.join(str(error).split())[:100]})") from None
    if not isinstance(content, dict):
        raise MessageError("not a CBOR map")
    return content


def _start(content: Mapping[str, Any], series: int, channel: str | None, first: int) -> Start:
    shape = tuple(_whole(content, f"image_size_{axis}") for axis in "yx")
    frame_bytes(shape, np.dtype(np.uint8))
    masks = content.get("pixel_mask")
    mask = None if not masks else _array(_of_channel(masks, channel)) == 0
    if mask is not None and mask.shape != shape:
        raise MessageError(f"a pixel mask of shape {mask.shape} for images of {shape}")
    # The largest value that is valid; ours is the smallest that is not.
    saturation = _whole(content, "saturation_value") + 1 if content.get("saturation_value") is not None else None
    translation = content.get("detector_translation")
    side, other = (_length(content.get(f"pixel_size_{axis}")) for axis in "yx")
    geometry, said = Geometry.told(
        wavelength=_length(content.get("incident_wavelength"), ANGSTROM),
        distance=_length(translation[2]) if isinstance(translation, list) and len(translation) == 3 else None,
        detector_pixel=side if side == other else None,
    )
    return Start(
        expected=max(_whole(content, "number_of_images") - first, 0) if "number_of_images" in content else None,
        frame_shape=(shape[0], shape[1]),
        mask=mask,
        saturation=saturation,
        geometry=geometry,
        metadata=said | {f"detector {name}": _words(content[name]) for name in PROVENANCE if name in content},
        series=series,
    )


def _frame(
    content: Mapping[str, Any], index: int, series: int, channel: str | None, received_at: float
) -> EncodedFrame:
    shape, dtype, data = _typed(_of_channel(content.get("data"), channel))
    if isinstance(data, bytes):
        return EncodedFrame(index, data, "none", shape, dtype, received_at, series)
    codec, item, packed = data
    return EncodedFrame(index, packed, codec, shape, dtype, received_at, series, item)


def _of_channel(values: Any, channel: str | None) -> Any:
    """Of a map from channel to array that of `channel`, or of the first."""
    if not isinstance(values, dict) or not values:
        raise MessageError("no map from channels to arrays")
    if channel is None:
        return next(iter(values.values()))
    if channel not in values:
        raise MessageError(f"no channel {channel!r}, but {_words(list(values))}")
    return values[channel]


def _array(value: Any) -> NDArray[Any]:
    shape, dtype, data = _typed(value)
    codec, item, packed = ("none", None, data) if isinstance(data, bytes) else data
    return decode(packed, codec, shape, dtype, item=item)


def _typed(value: Any) -> tuple[tuple[int, int], np.dtype[Any], bytes | tuple[str, int | None, bytes]]:
    """(shape, dtype, bytes or (codec, bytes of a number, compressed bytes)) of a two-dimensional typed array."""
    match value:
        case cbor2.CBORTag(tag=tag, value=[[int(height), int(width)], cbor2.CBORTag(tag=kind, value=data)]) if (
            tag == MULTIDIMENSIONAL
        ):
            pass
        case _:
            raise MessageError("not a two-dimensional typed array")
    shape, dtype = (height, width), number_type(kind)
    frame_bytes(shape, dtype)
    match data:
        case bytes():
            return shape, dtype, data
        case cbor2.CBORTag(tag=tag, value=[str(codec), int(item), bytes(packed)]) if tag == COMPRESSED:
            # The item size has a meaning for bslz4 only.
            return shape, dtype, (CODEC_NAMES.get(codec, codec), item or None, packed)
    raise MessageError("neither a byte string nor a compressed one")


def number_type(tag: int) -> np.dtype[Any]:
    """The dtype of a typed array, from its tag's bits: 010, float, signed, little-endian, two of length (RFC 8746)."""
    floating, signed, little, length = tag & 16, tag & 8, tag & 4, tag & 3
    if not 64 <= tag <= 87 or tag == 76 or (floating and length == 3):
        raise MessageError(f"an array of unknown type (tag {tag})")
    size = (2 if floating else 1) << length
    return np.dtype(f"{'<' if little else '>'}{'f' if floating else 'i' if signed else 'u'}{size}")


def number_tag(dtype: np.dtype[Any]) -> int:
    """The tag of a typed array; the inverse of `number_type`."""
    return next(tag for tag in range(64, 88) if tag not in (76, 83, 87) and number_type(tag) == dtype)


def _whole(content: Mapping[str, Any], name: str) -> int:
    value = content.get(name)
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise MessageError(f"{name} is {_words(value)}, not a whole number")
    return value


def _length(value: Any, unit: float = 1.0) -> float | None:
    """Metres, or None for what detectors send where nobody told them: nothing, or 0."""
    usable = isinstance(value, int | float) and 1e-100 < value < 1e100
    return float(value) * unit if usable else None


def _words(value: Any) -> str:
    """A value from outside in a message, shortened."""
    try:
        return str(value)[:100]
    except ValueError:  # an integer of more than 4300 digits
        return "a huge number"


def start_message(series: int, shape: tuple[int, int], **fields: Any) -> bytes:
    """The message that begins a series. fields: more of the published ones; pixel_mask is arrays by channel."""
    content = {"type": "start", "series_id": series, "series_unique_id": str(series)}
    content |= {"image_size_y": shape[0], "image_size_x": shape[1], **fields}
    if "pixel_mask" in fields:
        content["pixel_mask"] = {name: pack(mask, "none") for name, mask in fields["pixel_mask"].items()}
    return cbor2.dumps(content)


def image_message(series: int, image: int, channels: Mapping[str, cbor2.CBORTag]) -> bytes:
    """The message of one exposure. channels: the data of each, as `pack` makes them."""
    return cbor2.dumps({"type": "image", "series_id": series, "image_id": image, "data": dict(channels)})


def end_message(series: int) -> bytes:
    """The message that ends a series."""
    return cbor2.dumps({"type": "end", "series_id": series, "series_unique_id": str(series)})


def pack(array: NDArray[Any], codec: str) -> cbor2.CBORTag:
    """A two-dimensional array as tags. codec: "bslz4", "lz4" or "none"."""
    data: Any = encode(array, CODEC_NAMES.get(codec, codec))
    if codec != "none":
        data = cbor2.CBORTag(COMPRESSED, [codec, array.itemsize if codec == "bslz4" else 0, data])
    return cbor2.CBORTag(MULTIDIMENSIONAL, [list(array.shape), cbor2.CBORTag(number_tag(array.dtype), data)])
