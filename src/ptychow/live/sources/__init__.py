"""Sources: each speaks the protocol of a detector, a file or a stage, and says `live.records`.

`open_sources` makes them of what a user writes. FRAMES is one of

    SCAN                               replay of a scan file, as fast as it is taken; ?rate=HZ
    pva://CHANNEL                      EPICS NTNDArray; ?first=1 &frames=N &server=HOST:PORT &queue=1000
    stream2://HOST:PORT                Dectris, also tcp://; ?channel=threshold_1 &first=0 &connections=1 &queue=1000
    watch:FILE                         HDF5 or NAME_master.h5 being written; ?dataset=entry/data/data &channel=0
                                       &frames=N &idle=60

and POSITIONS, which a replay need not be given, one of

    FILE                               a scan, or a table; ?columns=y,x &unit=um
    pva://Y,X or pva://Y,X,INDEX       EPICS channels; ?unit=um &server=HOST:PORT &retained=no
    pva-table://CHANNEL                EPICS NTTable; ?columns=y,x &index=NAME, and as above
    attributes:Y,X                     attributes of the NTNDArrays themselves; ?unit=um
    watch:FILE                         HDF5 being written; ?datasets=entry/y,entry/x &unit=um &idle=60
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from ptychow.errors import InputError
from ptychow.live.records import Source

__all__ = ["files_of", "open_sources"]

REQUIRED: Any = object()
KINDS = ("replay", "pva", "pva-table", "stream2", "tcp", "watch", "attributes")


def open_sources(
    frames: str,
    positions: str | None = None,
    *,
    mapping: Mapping[str, str] | None = None,
    idle: float = 60.0,
    pixel_size_known: bool = True,
) -> list[Source]:
    """The source of the frames and, unless they bring them along, that of the positions; each still to be entered.

    frames, positions: as the module says. mapping: what a scan file among them does not say, as for `read_scan`: the
    one that is replayed, else that of the positions. idle: seconds after which a watched file that does not grow is
    taken to be complete, where its address does not say. pixel_size_known: whether the object's pixel size is given;
    where it is not, frames of an areaDetector, which never tells its geometry, need positions in object pixels.
    Raises InputError for what is not understood, or cannot be joined, MissingExtraError where the protocol's library is
    not installed.
    """
    source = _Address(frames, "--source")
    place = None if positions is None else _Address(positions, "--positions")
    said = dict(mapping or {})
    if said and not source.is_file and not (place is not None and place.is_file):
        raise InputError("explains a scan file, and there is none here", field="--map", found=", ".join(said))
    along: dict[str, Any] = {}
    unit = "px"
    if place is not None and place.scheme == "attributes":
        if source.scheme != "pva":
            raise InputError("only a pva:// source has attributes", field="--positions", found=positions)
        unit = place.take("unit", str)
        along = {"attributes": place.names(2), "unit": unit}
        place.finish()
        place = None
    elif place is None and not source.is_file:
        raise InputError(
            "must be given: these frames bring no positions",
            field="--positions",
            remedy="Name a scan file or a table, pva://Y,X?unit=um, watch:FILE... or attributes:Y,X "
            "(docs/live_sources.md)",
        )
    if source.is_file:
        return _open_replay(source, place, said, idle)
    opened = [_open_frames(source, along, idle)]
    if place is not None:
        stage, unit = _open_positions(place, said, idle)
        opened.append(stage)
    if unit != "px" and not pixel_size_known and not _tells_geometry(source):
        raise InputError(
            "must be given: an areaDetector tells no geometry that lengths could be turned into pixels with",
            field="--pixel-size-nm",
            found=f"positions in {unit}",
            expected="the object's pixel size in nanometres, or positions in px",
        )
    return opened


def files_of(frames: str, positions: str | None = None) -> list[Path]:
    """The files that these sources read. Raises InputError as `open_sources`."""
    addresses = [_Address(frames, "--source")]
    if positions is not None:
        addresses.append(_Address(positions, "--positions"))
    return [Path(address.rest) for address in addresses if address.is_file or address.scheme == "watch"]


class _Address:
    """SCHEME:REST?OPTION=VALUE&..., and what of the options has been used."""

    def __init__(self, text: str, field: str) -> None:
        self.text, self.field = text, field
        address, _, query = text.partition("?")
        scheme, separator, rest = address.partition(":")
        known = scheme in KINDS
        if not known and "://" in address:
            expected = "a file, " + ", ".join(f"{kind}:" for kind in KINDS) + " (docs/live_sources.md)"
            raise InputError("an unknown kind of source", field=field, found=text, expected=expected)
        self.scheme, self.rest = (scheme, rest.removeprefix("//")) if known and separator else ("", address)
        self._options = dict(parse_qsl(query, keep_blank_values=True))

    @property
    def is_file(self) -> bool:
        """Whether it names a file that is complete."""
        return self.scheme in ("", "replay")

    def take(self, name: str, kind: Callable[[str], Any], default: Any = REQUIRED) -> Any:
        """An option's value, or `default`. Raises InputError where it is required, or not of its kind."""
        text = self._options.pop(name, None)
        if text is None:
            if default is REQUIRED:
                raise InputError("leaves out", field=self.field, found=self.text, expected=f"?{name}=...")
            return default
        try:
            return kind(text)
        except (ValueError, KeyError):
            raise InputError("not understood", field=self.field, found=f"{name}={text}") from None

    def names(self, *counts: int) -> tuple[str, ...]:
        """The names, separated by commas, that the address consists of. Raises InputError for another number."""
        return self.split(self.rest, *counts)

    def split(self, text: str, *counts: int) -> tuple[str, ...]:
        """Names separated by commas. Raises InputError for another number than one of `counts`."""
        names = tuple(name.strip() for name in text.split(","))
        if len(names) not in counts or not all(names) or len(set(names)) < len(names):
            expected = " or ".join(str(count) for count in counts) + " different names, separated by commas"
            raise InputError("not understood", field=self.field, found=self.text, expected=expected)
        return names

    def finish(self) -> None:
        """Raise InputError for options that nobody asked for."""
        if self._options:
            found = ", ".join(self._options)
            raise InputError("an option this kind of source does not have", field=self.field, found=found)


def _tells_geometry(frames: _Address) -> bool:
    """Whether such frames can say how large the object's pixels are. Of HDF5 files a Dectris detector's master does."""
    return frames.scheme not in ("pva", "watch") or frames.rest.endswith("_master.h5")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _finite(text: str) -> float:
    """A positive number of seconds, or of frames a second."""
    number = float(text)
    if not 0 < number < math.inf:
        raise ValueError
    return number


def _open_frames(address: _Address, along: dict[str, Any], idle: float) -> Source:
    source: Source
    if address.scheme == "pva":
        from ptychow.live.sources.pva import PvaSource

        source = PvaSource(
            address.rest,
            first=address.take("first", lambda text: None if text == "auto" else int(text), 1),
            frames=address.take("frames", _positive, None),
            server=address.take("server", str, None),
            queue=address.take("queue", _positive, 1000),
            **along,
        )
    elif address.scheme in ("stream2", "tcp"):
        from ptychow.live.sources.stream2 import Stream2Source

        source = Stream2Source(
            address.rest,
            channel=address.take("channel", str, None),
            first=address.take("first", int, 0),
            connections=address.take("connections", _positive, 1),
            queue=address.take("queue", _positive, 1000),
        )
    elif address.scheme == "watch":
        from ptychow.live.sources.growing import GrowingFrames

        source = GrowingFrames(
            Path(address.rest),
            dataset=address.take("dataset", str, "entry/data/data"),
            channel=address.take("channel", int, None),
            expected=address.take("frames", _positive, None),
            idle=address.take("idle", _finite, idle),
        )
    else:
        raise InputError("no source of frames", field=address.field, found=address.text)
    address.finish()
    return source


def _open_replay(source: _Address, place: _Address | None, said: dict[str, str], idle: float) -> list[Source]:
    """The frames of a scan file, and its own positions, those of a table, or those that `place` will tell."""
    from ptychow.formats import read_scan
    from ptychow.live.sources.replay import ReplaySource, StoredPositions

    table = _table(place, said) if place is not None and place.is_file else None
    scan = read_scan(source.rest, mapping=said | (table or {}))
    replay = ReplaySource(scan, rate=source.take("rate", _finite, None))
    source.finish()
    if place is not None and table is None:
        return [replay, _open_positions(place, {}, idle)[0]]
    if place is not None:
        place.finish()
    return [replay, StoredPositions(scan.positions, scan.position_unit, scan.name)]


def _open_positions(address: _Address, said: dict[str, str], idle: float) -> tuple[Source, str]:
    """(source, unit of its positions). said: what a file does not say."""
    source: Source
    unit = address.take("unit", str) if address.scheme in ("pva", "pva-table", "watch") else ""
    if address.scheme in ("pva", "pva-table"):
        from ptychow.live.sources.pva_positions import PvaPositions, PvaTable

        common = {
            "unit": unit,
            "server": address.take("server", str, None),
            "retained": address.take("retained", {"yes": True, "no": False}.__getitem__, False),
        }
        if address.scheme == "pva":
            source = PvaPositions(*address.names(2, 3), **common)
        else:
            y, x = address.take("columns", lambda text: address.split(text, 2), ("y", "x"))
            index = address.take("index", str, None)
            source = PvaTable(address.rest, (y, x), index=index, **common)
    elif address.scheme == "watch":
        from ptychow.live.sources.growing import GrowingPositions

        source = GrowingPositions(
            Path(address.rest),
            address.take("datasets", lambda text: address.split(text, 1, 2)),
            unit=unit,
            idle=address.take("idle", _finite, idle),
        )
    elif address.is_file:
        source, unit = _stored_positions(address, said)
    else:
        raise InputError("no source of positions", field=address.field, found=address.text)
    address.finish()
    return source, unit


def _stored_positions(address: _Address, said: dict[str, str]) -> tuple[Source, str]:
    """Of a scan file, or of a table."""
    from ptychow.formats import read_scan
    from ptychow.formats.position_files import read_positions_alone
    from ptychow.live.sources.replay import StoredPositions

    table = _table(address, said)
    if table is not None:
        positions, unit = read_positions_alone(said | table)
        return StoredPositions(positions, unit, Path(address.rest).name), unit
    scan = read_scan(address.rest, mapping=said)
    return StoredPositions(scan.positions, scan.position_unit, scan.name), scan.position_unit


def _table(address: _Address, said: dict[str, str]) -> dict[str, str] | None:
    """What `read_positions` wants to know of a file; None where that is a scan, and nobody speaks of its columns."""
    from ptychow.formats import is_scan

    path = Path(address.rest)
    told = {"position_columns": address.take("columns", str, None), "position_unit": address.take("unit", str, None)}
    told = {name: value for name, value in told.items() if value is not None}
    if not told and "position_columns" not in said and is_scan(path):
        return None
    return {"positions_file": str(path)} | told
