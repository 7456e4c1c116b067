"""What the page is told: how things are, and what has changed in the picture since this browser looked last.

A message is text, the JSON of `Session.snapshot`, or binary: the length of a JSON header (4 bytes, little-endian), the
header, and a body compressed with zlib. Kinds of header: "tiles" (each TILE x TILE pixels: amplitude as uint16 in steps
of `amplitude_step`, phase as int16 in steps of pi/32767, coverage as uint16 in hundredths), "path" (float32 rows of y,
x and residual), "pattern" (uint8, a root of the root counts).
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychow.files import to_json
from ptychow.live.mosaic import TILE, Mosaic, Tile
from ptychow.live.session import Session
from ptychow.reconstruction import Reconstruction
from ptychow.scan import Geometry, ObjectImage

# Of one message: what a browser can take at a time, and what a slow connection can carry.
MOST_TILES, MOST_POINTS = 96, 20_000


@dataclass
class Seen:
    """What one browser has been sent. picture: how many there were, of scans and of those that began again. version: of
    the mosaic. blocks: of the path.

    mosaic, latest: the mosaic and the pattern themselves; the `id` of another, once they are gone, can be the same.
    """

    mosaic: Mosaic | None = None
    picture: int = 0
    version: int = 0
    blocks: int = 0
    latest: NDArray[np.float32] | None = None


def updates(session: Session, seen: Seen) -> list[str | bytes]:
    """Messages that bring a browser up to date, or some of the way; notes in `seen` what they hold."""
    scan = session.scan
    mosaic = None if scan is None else scan.mosaic
    if mosaic is not seen.mosaic:
        seen.mosaic, seen.version, seen.blocks, seen.latest = mosaic, 0, 0, None
        seen.picture += 1
    messages: list[str | bytes] = [to_json({**session.snapshot(), "picture": seen.picture}, indent=None)]
    if scan is None or mosaic is None:
        return messages
    seen.version, tiles = mosaic.changed_since(seen.version, MOST_TILES)
    if tiles:
        messages.append(tiles_message(tiles))
    blocks, points = [], 0
    while seen.blocks < len(scan.path) and points < MOST_POINTS:
        blocks.append(scan.path[seen.blocks])
        points += len(blocks[-1])
        seen.blocks += 1
    if blocks:
        messages.append(_message({"kind": "path", "points": points}, np.concatenate(blocks)))
    pattern = scan.latest
    if pattern is not None and pattern is not seen.latest:
        seen.latest = pattern
        messages.append(pattern_message(pattern))
    return messages


def tiles_message(tiles: list[Tile]) -> bytes:
    """Tiles of a mosaic."""
    images, coverages = np.stack([tile.image for tile in tiles]), np.stack([tile.coverage for tile in tiles])
    amplitude = np.abs(images)
    step = float(amplitude.max()) / 65535 or 1.0
    planes = [
        np.rint(amplitude / step).astype("<u2"),
        np.rint(np.angle(images) * (32767 / np.pi)).astype("<i2").view("<u2"),
        np.rint(np.minimum(coverages * 100, 65535)).astype("<u2"),
    ]
    header = {"kind": "tiles", "size": TILE, "amplitude_step": step, "places": [[t.row, t.column] for t in tiles]}
    return _message(header, np.stack(planes, axis=1))


def pattern_message(root_counts: NDArray[np.float32]) -> bytes:
    """The newest frame, bright enough to see its weak parts: fourth root of the counts."""
    bright = np.sqrt(root_counts / max(float(root_counts.max()), 1e-12))
    header = {"kind": "pattern", "shape": root_counts.shape, "counts": float(np.square(root_counts, dtype=float).sum())}
    return _message(header, np.rint(bright * 255).astype(np.uint8))


def _message(header: dict[str, Any], body: NDArray[Any]) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + zlib.compress(body.tobytes(), 1)


def current(session: Session) -> tuple[ObjectImage, NDArray[np.float32], Geometry] | None:
    """(object, coverage, geometry) as they are: the result once there is one, else the preview; None before that."""
    scan, result = session.scan, _result(session)
    if result is not None:
        return result.image, result.coverage, result.geometry
    if scan is None:
        return None
    with scan.mosaic.still() as canvas:
        if canvas is None:
            return None
        return canvas.object_image("preview of a live scan"), canvas.coverage(), Geometry(pixel_size=scan.pixel_size)


def _result(session: Session) -> Reconstruction | None:
    """The last scan's result, where there is one and it is what people want to have."""
    return session.result if session.state in ("done", "unsaved") else None


def name(session: Session) -> str:
    """Of the scan that `current` gives the object of."""
    return session.scan_name if _result(session) is None else session.result_name


def tiff(session: Session) -> bytes | None:
    """Amplitude, phase and coverage as the three float32 pages of a TIFF; None before the first patch."""
    import tifffile

    found = current(session)
    if found is None:
        return None
    image, coverage, geometry = found
    pages = np.stack([np.abs(image.image), np.angle(image.image), coverage]).astype(np.float32)
    described = {"pages": ["amplitude", "phase (rad)", "coverage"], "origin_px": image.origin, "source": image.source}
    per_centimetre = 1.0 if geometry.pixel_size is None else 0.01 / geometry.pixel_size
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        pages,
        photometric="minisblack",
        description=json.dumps({**described, "pixel_size_m": geometry.pixel_size}),
        resolution=(per_centimetre, per_centimetre),
        resolutionunit="NONE" if geometry.pixel_size is None else "CENTIMETER",
    )
    return file.getvalue()


def cxi(session: Session, path: Path) -> bool:
    """Write the object as CXI; False before the first patch. Raises PtychoWError where it cannot be written."""
    from ptychow.formats.cxi import write_reconstruction

    result = _result(session)
    if result is not None:
        result.save(path)
        return True
    found = current(session)
    if found is None:
        return False
    image, coverage, geometry = found
    summary = {**session.snapshot(), "preview": True}
    write_reconstruction(path, image, geometry=geometry, coverage=coverage, summary=summary)
    return True
