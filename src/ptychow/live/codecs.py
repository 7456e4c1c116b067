"""Compressed frames: what areaDetector and Dectris put on the wire, both ways.

Names are areaDetector's (ADCore, Codec.h); "bslz4hdf5" and "lz4hdf5" are what Dectris calls "bslz4" and "lz4":

    none       the numbers themselves
    lz4        one LZ4 block
    lz4hdf5    a header (8 bytes: size; 4 bytes: block size), then each block: 4 bytes of length and LZ4 data
    bslz4      blocks of 8 KiB, bit-shuffled, each as above; the last numbers, modulo 8, stay as they are
    bslz4hdf5  the header of lz4hdf5, then bslz4
    blosc      a blosc 1 buffer
    zlib       a zlib stream

Lengths are big-endian. Who decodes knows beforehand how large the frame is. What does not decode to exactly that is
refused, and no length that the data state is believed: no memory is taken for more, none is read beyond the data.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import MissingExtraError

try:
    codecs: Any = import_module("imagecodecs")  # whose stubs know no memoryview
except ImportError:
    raise MissingExtraError("Receiving compressed frames", "live") from None

# A frame of the largest detectors (16 million pixels of 32 bits) is 72 MB.
MOST_FRAME_BYTES = 1 << 28
BLOCK_BYTES = 8192
HEADER = struct.Struct(">QI")
LENGTH = struct.Struct(">I")

Bytes = NDArray[np.uint8]


class CodecError(ValueError):
    """The data are not what they should be."""


class Codec(NamedTuple):
    """Both ways. decode(data, output, item): fill the bytes of a frame, whose numbers have `item` bytes each."""

    decode: Callable[[memoryview, Bytes, int], None]
    encode: Callable[[Bytes, int], bytes]


def frame_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Bytes of a frame of `shape`. Raises CodecError for what cannot be an image of counts."""
    if len(shape) != 2 or min(shape) < 1:
        raise CodecError(f"not an image: shape {shape}")
    if dtype.kind not in "uif":
        raise CodecError(f"not counts: {dtype}")
    size = math.prod(shape) * dtype.itemsize
    if size > MOST_FRAME_BYTES:
        raise CodecError(f"a frame of {size} bytes, more than the {MOST_FRAME_BYTES} that are allowed")
    return size


def decode(
    data: bytes | memoryview, codec: str, shape: tuple[int, int], dtype: np.dtype[Any], *, item: int | None = None
) -> NDArray[Any]:
    """The frame (H, W), writable, in native byte order. Releases the GIL for most of its time.

    item: bytes of a number for the compressor, where it was told another size than the dtype's.
    Raises CodecError for whatever is not a frame of this shape and dtype in this codec.
    """
    output = np.empty(frame_bytes(shape, dtype), np.uint8)
    if codec not in CODECS:
        reason = "it changes the counts" if codec == "jpeg" else f"known are {', '.join(CODECS)}"
        raise CodecError(f"codec {codec!r} is refused: {reason}")
    try:
        CODECS[codec].decode(memoryview(data).cast("B"), output, item or dtype.itemsize)
    except (RuntimeError, struct.error, zlib.error) as error:  # imagecodecs' own errors are RuntimeErrors
        raise CodecError(f"damaged {codec} data ({error})") from None
    frame = output.view(dtype).reshape(shape)
    return frame if dtype.isnative else frame.astype(dtype.newbyteorder("="))


def encode(frame: NDArray[Any], codec: str) -> bytes:
    """What a detector sends for `frame`."""
    frame = np.ascontiguousarray(frame)
    return CODECS[codec].encode(frame.reshape(-1).view(np.uint8), frame.dtype.itemsize)


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise CodecError(problem)


def _copy(data: memoryview, output: Bytes, _item: int) -> None:
    _require(len(data) == len(output), f"{len(data)} bytes where the frame has {len(output)}")
    output[:] = data


def _inflate_lz4(data: memoryview, output: Bytes) -> None:
    _require(len(data) > 0, "an LZ4 block of no bytes")
    found = len(codecs.lz4_decode(data, out=output))
    _require(found == len(output), f"an LZ4 block of {found} bytes, expected {len(output)}")


def _decode_lz4(data: memoryview, output: Bytes, _item: int) -> None:
    _inflate_lz4(data, output)


def _blocks(data: memoryview, lengths: Iterator[int]) -> Iterator[tuple[memoryview, int, int]]:
    """(compressed, first byte, last byte + 1 of the output) of blocks that unpack to `lengths`; all of data is used."""
    position = first = 0
    for length in lengths:
        (size,) = LENGTH.unpack_from(data, position)
        start, position = position + LENGTH.size, position + LENGTH.size + size
        _require(position <= len(data), f"a block of {size} bytes reaches beyond the data")
        yield data[start:position], first, first + length
        first += length
    _require(position == len(data), f"{len(data) - position} bytes too many")


def _header(data: memoryview, output: Bytes) -> tuple[memoryview, int]:
    """What follows the header of the HDF5 filters, and its block size. Raises CodecError for a size not the frame's."""
    size, block = HEADER.unpack_from(data)
    _require(size == len(output), f"the header states {size} bytes where the frame has {len(output)}")
    return data[HEADER.size :], block


def _decode_lz4hdf5(data: memoryview, output: Bytes, _item: int) -> None:
    blocks, size = _header(data, output)
    _require(size > 0, "a block size of 0")
    lengths = (min(size, len(output) - first) for first in range(0, len(output), size))
    for block, first, last in _blocks(blocks, lengths):
        if len(block) == last - first:
            output[first:last] = block  # what LZ4 could not shrink is stored
        else:
            _inflate_lz4(block, output[first:last])


def _shuffle_block(item: int) -> int:
    """Numbers of a block by default: as many as fit into 8 KiB, a multiple of 8, at least 128."""
    return max(BLOCK_BYTES // item // 8 * 8, 128)


def _shuffled_lengths(numbers: int, block: int, item: int) -> Iterator[int]:
    """Bytes of each bit-shuffled block; the last one has what is left, down to a multiple of 8 numbers."""
    shuffled = numbers // 8 * 8
    return (min(block, shuffled - first) * item for first in range(0, shuffled, block))


def _unshuffle(data: memoryview, output: Bytes, item: int, block: int) -> None:
    _require(item in (1, 2, 4, 8) and len(output) % item == 0, f"bit-shuffled numbers of {item} bytes")
    _require(block >= 8 and block % 8 == 0, f"bit-shuffled blocks of {block} numbers")
    numbers = len(output) // item
    rest = numbers % 8 * item
    _require(len(data) >= rest, "shorter than its uncompressed end")
    shuffled = np.empty(len(output), np.uint8)
    for packed, first, last in _blocks(data[: len(data) - rest], _shuffled_lengths(numbers, block, item)):
        _inflate_lz4(packed, shuffled[first:last])
    if rest:
        shuffled[-rest:] = data[len(data) - rest :]
    codecs.bitshuffle_decode(shuffled.data, itemsize=item, blocksize=block, out=output)


def _decode_bslz4(data: memoryview, output: Bytes, item: int) -> None:
    _unshuffle(data, output, item, _shuffle_block(item))


def _decode_bslz4hdf5(data: memoryview, output: Bytes, item: int) -> None:
    blocks, size = _header(data, output)
    _unshuffle(blocks, output, item, size // item if size else _shuffle_block(item))


def _decode_blosc(data: memoryview, output: Bytes, _item: int) -> None:
    # Bytes 4-7 and 12-15 of the header are the sizes before and after compression.
    _require(len(data) >= 16, "shorter than a blosc header")
    size, _, compressed = struct.unpack_from("<3I", data, 4)
    _require(size == len(output), f"the header states {size} bytes where the frame has {len(output)}")
    _require(compressed == len(data), f"the header states {compressed} compressed bytes of {len(data)}")
    codecs.blosc_decode(data, numthreads=1, out=output)


def _decode_zlib(data: memoryview, output: Bytes, _item: int) -> None:
    stream = zlib.decompressobj()
    inflated = stream.decompress(data, len(output) + 1)
    _require(stream.eof and len(inflated) == len(output), f"does not unpack to {len(output)} bytes")
    output[:] = np.frombuffer(inflated, np.uint8)


def _packed(raw: Bytes, lengths: Iterator[int]) -> bytes:
    """Blocks of these lengths, each with its compressed length before it."""
    parts, first = [], 0
    for length in lengths:
        packed = bytes(codecs.lz4_encode(raw[first : first + length]))
        parts += [LENGTH.pack(len(packed)), packed]
        first += length
    return b"".join(parts)


def _encode_bslz4(raw: Bytes, item: int) -> bytes:
    block, numbers = _shuffle_block(item), len(raw) // item
    shuffled = np.empty(len(raw), np.uint8)
    codecs.bitshuffle_encode(raw.data, itemsize=item, blocksize=block, out=shuffled)
    rest = numbers % 8 * item
    return _packed(shuffled, _shuffled_lengths(numbers, block, item)) + bytes(raw[len(raw) - rest :])


def _encode_bslz4hdf5(raw: Bytes, item: int) -> bytes:
    return HEADER.pack(len(raw), _shuffle_block(item) * item) + _encode_bslz4(raw, item)


CODECS: dict[str, Codec] = {
    "none": Codec(_copy, lambda raw, _: raw.tobytes()),
    "lz4": Codec(_decode_lz4, lambda raw, _: bytes(codecs.lz4_encode(raw))),
    "lz4hdf5": Codec(_decode_lz4hdf5, lambda raw, _: bytes(codecs.lz4h5_encode(raw))),
    "bslz4": Codec(_decode_bslz4, _encode_bslz4),
    "bslz4hdf5": Codec(_decode_bslz4hdf5, _encode_bslz4hdf5),
    "blosc": Codec(
        _decode_blosc,
        lambda raw, item: bytes(codecs.blosc_encode(raw, compressor="lz4", typesize=item, numthreads=1)),
    ),
    "zlib": Codec(_decode_zlib, lambda raw, _: zlib.compress(raw.tobytes(), 1)),
}
