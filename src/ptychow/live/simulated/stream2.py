"""A Dectris detector: stream2 over a ZeroMQ PUSH socket on this machine."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import numpy as np
import zmq

from ptychow.errors import PtychoWError
from ptychow.live import dectris
from ptychow.live.simulated.frames import Payloads
from ptychow.scan import Scan

CHANNEL = "threshold_1"
# The control unit keeps what nobody takes; what is beyond this, it loses.
QUEUE = 10_000


class Stream2Server:
    """Sends a scan as a Dectris detector does. port: to listen on; 0: any that is free. codec: bslz4, lz4 or none."""

    def __init__(self, scan: Scan, *, count: int, codec: str = "bslz4", port: int = 0) -> None:
        self._scan, self._count, self._port = scan, count, port
        self._payloads = Payloads(scan, lambda frame: dectris.pack(frame, codec))

    def __enter__(self) -> Self:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What was sent last may still be on its way.
        self._socket.close(linger=2000)
        self._context.term()

    def _open(self) -> None:
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, QUEUE)
        try:
            self._socket.bind(f"tcp://127.0.0.1:{self._port or '*'}")
        except zmq.ZMQError as error:
            self._socket.close(linger=0)
            told = f"cannot listen on port {self._port}: {error.strerror} (--port 0 takes a free one)"
            raise PtychoWError(told) from None
        self._port = int(self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])

    @property
    def source(self) -> str:
        """What `ptychow live --source` wants to know."""
        return f"stream2://127.0.0.1:{self._port}"

    def prepare(self, index: int) -> None:
        """Compress a frame before its time."""
        self._payloads.get(index)

    def wait_for_client(self, timeout: float) -> bool:
        """Whether somebody listens within `timeout` seconds."""
        return bool(self._socket.poll(int(timeout * 1000), zmq.POLLOUT))

    def start(self, series: int) -> None:
        """Say what follows."""
        geometry, scan = self._scan.geometry, self._scan
        fields: dict[str, Any] = {
            "number_of_images": self._count,
            "channels": [CHANNEL],
            "detector_description": f"PtychoW simulated detector: {scan.name}",
            "detector_translation": [0.0, 0.0, geometry.distance or 0.0],
            "incident_wavelength": (geometry.wavelength or 0.0) / dectris.ANGSTROM,
            "pixel_size_x": geometry.detector_pixel or 0.0,
            "pixel_size_y": geometry.detector_pixel or 0.0,
        }
        if scan.mask is not None:
            fields["pixel_mask"] = {CHANNEL: (~scan.mask).astype(np.uint32)}
        if scan.saturation is not None:
            fields["saturation_value"] = int(scan.saturation) - 1
        self._socket.send(dectris.start_message(series, scan.frame_shape, **fields))

    def frame(self, index: int, series: int) -> bool:
        """Send a frame; whether there was room for it."""
        return self._send(dectris.image_message(series, index, {CHANNEL: self._payloads.get(index)}))

    def garbage(self, index: int, series: int) -> bool:
        """Send nonsense instead of a frame."""
        message = dectris.image_message(series, index, {CHANNEL: self._payloads.get(index)})
        return self._send((message[: len(message) // 2], b"\x9b" + b"\xff" * 8, b"garbage")[index % 3])

    def end(self, series: int) -> None:
        """Say that the series is over."""
        self._socket.send(dectris.end_message(series))

    def vanish(self) -> None:
        """Go away, with all that was not taken yet."""
        self._socket.close(linger=0)

    def come_back(self) -> None:
        """Be there again, at the same address."""
        self._open()

    def _send(self, message: bytes) -> bool:
        try:
            self._socket.send(message, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True
