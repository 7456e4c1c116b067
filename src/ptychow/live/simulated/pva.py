"""An areaDetector, and stages: EPICS pvAccess on this machine, without a broadcast."""

from __future__ import annotations

import time
from threading import Event
from types import TracebackType
from typing import Self

import numpy as np
from p4p import Value
from p4p.nt import NTScalar, NTTable
from p4p.server import Server
from p4p.server.raw import SharedPV

from ptychow.live import ntndarray
from ptychow.live.codecs import encode
from ptychow.live.ntndarray import EPICS_EPOCH
from ptychow.live.simulated.frames import Payloads
from ptychow.scan import Scan

PREFIX = "PTYCHOW:SIM"
# A client that has connected still has to subscribe.
SUBSCRIBE_SECONDS = 0.5
FIRST_ID = 1  # as areaDetector's counters
# What a record shows that has never been processed.
UNPROCESSED = {"timeStamp.secondsPastEpoch": EPICS_EPOCH}


def serve(channels: dict[str, SharedPV], port: int) -> Server:
    """A server on the loopback interface only, that announces itself to nobody."""
    configuration = {
        "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
        "EPICS_PVAS_SERVER_PORT": str(port),
        "EPICS_PVAS_BROADCAST_PORT": "0",
        "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_PVAS_BEACON_ADDR_LIST": "127.0.0.1",
    }
    return Server(providers=[channels], conf=configuration, useenv=False)


def port_of(server: Server) -> int:
    """Where it listens."""
    return int(server.conf()["EPICS_PVAS_SERVER_PORT"])


class _Greeter:
    """Knows whether somebody has connected."""

    def __init__(self) -> None:
        self._greeted = Event()

    def onFirstConnect(self, _channel: SharedPV) -> None:
        """Called by p4p."""
        self._greeted.set()

    def wait(self, timeout: float) -> bool:
        """Whether somebody has connected, and had time to subscribe, within `timeout` seconds."""
        greeted = self._greeted.wait(timeout)
        time.sleep(SUBSCRIBE_SECONDS)
        return greeted


class PvaServer:
    """Publishes a scan as areaDetector's NDPluginPva does, positions as attributes Y and X where `attributes`.

    port: to listen on; 0: any that is free. codec: a name of `live.codecs.CODECS`.
    """

    def __init__(self, scan: Scan, *, codec: str = "none", port: int = 0, attributes: bool = True) -> None:
        self._scan, self._port, self._codec, self._attributes = scan, port, codec, attributes
        self._payloads = Payloads(scan, lambda frame: encode(frame, codec))
        self._greeter = _Greeter()

    def __enter__(self) -> Self:
        self.come_back()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.vanish()

    @property
    def source(self) -> str:
        """What `ptychow live --source` wants to know."""
        return f"pva://{PREFIX}:Pva1:Image?server=127.0.0.1:{self._port}"

    def prepare(self, index: int) -> None:
        """Compress a frame before its time."""
        self._payloads.get(index)

    def wait_for_client(self, timeout: float) -> bool:
        """Whether somebody listens within `timeout` seconds."""
        return self._greeter.wait(timeout)

    def start(self, series: int) -> None:
        """Note the time; this protocol has no word for it."""
        self._began = time.time_ns()

    def frame(self, index: int, series: int) -> bool:
        """Publish a frame."""
        self._post(index, self._scan.frame_shape, self._payloads.get(index))
        return True

    def garbage(self, index: int, series: int) -> bool:
        """Publish what is no frame: too little data, more pixels than there are atoms, no data."""
        shape, data = self._scan.frame_shape, self._payloads.get(index)
        self._post(index, *((shape, data[:-8]), ((2**31 - 1, 2**31 - 1), data), ((0, 0), b""))[index % 3])
        return True

    def end(self, series: int) -> None:
        """Nothing, as `start`."""

    def vanish(self) -> None:
        """Go away."""
        self._server.stop()

    def come_back(self) -> None:
        """Be there, at the same address."""
        self._channel = SharedPV(handler=self._greeter, initial=Value(ntndarray.TYPE, {}))
        self._server = serve({f"{PREFIX}:Pva1:Image": self._channel}, self._port)
        self._port = port_of(self._server)

    def _post(self, index: int, shape: tuple[int, int], data: bytes) -> None:
        y, x = self._scan.positions[index % len(self._scan)]
        attributes = {"Y": float(y), "X": float(x)} if self._attributes else None
        # Late frames bear the time at which they were taken, not that at which they are sent; only the order matters.
        taken, dtype = self._began + 1000 * index, self._scan.frames.dtype
        self._channel.post(ntndarray.build(shape, dtype, data, self._codec, index + FIRST_ID, taken, attributes))


class PositionServer:
    """Publishes positions as they are reached: a table in pieces, and single numbers with their index.

    They are called POSITIONS (columns index, y, x), and Y, X and INDEX. port: as `PvaServer`.
    """

    def __init__(self, scan: Scan, *, port: int = 0) -> None:
        self._scan, self._port = scan, port
        self._table = NTTable([("index", "l"), ("y", "d"), ("x", "d")])
        self._greeter = _Greeter()
        self._numbers = {name: NTScalar(kind) for name, kind in (("Y", "d"), ("X", "d"), ("INDEX", "l"))}

    def __enter__(self) -> Self:
        kinds = {**self._numbers, "POSITIONS": self._table}
        self._channels = {
            name: SharedPV(handler=self._greeter, initial=Value(kind.type, UNPROCESSED)) for name, kind in kinds.items()
        }
        self._server = serve({f"{PREFIX}:{name}": channel for name, channel in self._channels.items()}, self._port)
        self._port = port_of(self._server)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()

    @property
    def table(self) -> str:
        """What `ptychow live --positions` wants to know for the table."""
        return f"pva-table://{PREFIX}:POSITIONS?index=index&{self._options}"

    @property
    def numbers(self) -> str:
        """The same for the single numbers."""
        return f"pva://{PREFIX}:Y,{PREFIX}:X,{PREFIX}:INDEX?{self._options}"

    @property
    def _options(self) -> str:
        return f"unit={self._scan.position_unit}&server=127.0.0.1:{self._port}"

    def wait_for_client(self, timeout: float) -> bool:
        """Whether somebody listens within `timeout` seconds."""
        return self._greeter.wait(timeout)

    def publish(self, indices: list[int]) -> None:
        """The positions of these frames."""
        positions = self._scan.positions[np.array(indices) % len(self._scan)]
        columns = {"index": np.array(indices), "y": positions[:, 0], "x": positions[:, 1]}
        self._channels["POSITIONS"].post(Value(self._table.type, {"value": columns, **_stamp()}))
        for index, (y, x) in zip(indices, positions.tolist(), strict=True):
            stamp = _stamp()
            for name, value in (("Y", y), ("X", x), ("INDEX", index)):
                self._channels[name].post(Value(self._numbers[name].type, {"value": value, **stamp}))


def _stamp() -> dict[str, int]:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return {"timeStamp.secondsPastEpoch": seconds, "timeStamp.nanoseconds": nanoseconds}
