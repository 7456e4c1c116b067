"""A detector that writes HDF5 while others read it (SWMR), positions beside the frames."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import hdf5plugin

from ptychow.live.codecs import encode
from ptychow.live.simulated.frames import Payloads
from ptychow.scan import Scan

FLUSH_FRAMES = 16


class FileWriter:
    """Writes a scan frame by frame, bitshuffle and LZ4, as Dectris and areaDetector do. path: must not exist."""

    def __init__(self, scan: Scan, path: Path, *, count: int) -> None:
        self._scan, self._path, self._count = scan, path, count
        self._payloads = Payloads(scan, lambda frame: encode(frame, "bslz4hdf5"))
        self._written = 0

    def __enter__(self) -> Self:
        self._file = h5py.File(self._path, "x", libver="latest")
        shape = self._scan.frame_shape
        self._frames = self._file.create_dataset(
            "entry/data/data",
            (0, *shape),
            self._scan.frames.dtype,
            maxshape=(None, *shape),
            chunks=(1, *shape),
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        self._positions = self._file.create_dataset(
            "entry/positions", (0, 2), "f8", maxshape=(None, 2), chunks=(256, 2)
        )
        self._file.swmr_mode = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def source(self) -> str:
        """What `ptychow live --source` wants to know."""
        return f"watch:{self._path}?frames={self._count}"

    @property
    def positions(self) -> str:
        """What `ptychow live --positions` wants to know."""
        return f"watch:{self._path}?datasets=entry/positions&unit={self._scan.position_unit}"

    def prepare(self, index: int) -> None:
        """Compress a frame before its time."""
        self._payloads.get(index)

    def wait_for_client(self, timeout: float) -> bool:
        """Nobody need be there."""
        return True

    def start(self, series: int) -> None:
        """Nothing: the file says all."""

    def frame(self, index: int, series: int) -> bool:
        """Write a frame, and a position, behind the last."""
        self._frames.resize(self._written + 1, axis=0)
        self._frames.id.write_direct_chunk((self._written, 0, 0), self._payloads.get(index))
        self._positions.resize(self._written + 1, axis=0)
        self._positions[self._written] = self._scan.positions[index % len(self._scan)]
        self._written += 1
        if self._written % FLUSH_FRAMES == 0:
            self._flush()
        return True

    def end(self, series: int) -> None:
        """Let readers see the last frames."""
        self._flush()

    def _flush(self) -> None:
        self._frames.flush()
        self._positions.flush()
