"""Dectris stream2: frames from a detector's ZeroMQ PUSH socket.

PUSH deals its messages to whoever pulls: several receivers (processes, machines, connections) share a scan between
them, in any order, and the index joins what they received.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ptychow.errors import InputError, MissingExtraError
from ptychow.live import dectris
from ptychow.live.codecs import MOST_FRAME_BYTES
from ptychow.live.records import Record, SourceBack, SourceLost, now

try:
    import zmq
    from zmq.utils.monitor import recv_monitor_message
except ImportError:
    raise MissingExtraError("Dectris stream2", "live") from None

PORT = 31001
MOST_AT_ONCE = 256
KEEP_ALIVE = {zmq.TCP_KEEPALIVE: 1, zmq.TCP_KEEPALIVE_IDLE: 5, zmq.TCP_KEEPALIVE_INTVL: 2, zmq.TCP_KEEPALIVE_CNT: 3}


class Stream2Source:
    """Frames of a Dectris detector.

    address: "host" or "host:port". channel: whose data, with several thresholds; None: the first's.
    first: image_id of the frame that is index 0. connections: to the detector, each with its own thread of ZeroMQ.
    queue: messages kept per connection until polled; a detector that gets rid of no more keeps them itself.
    """

    waits = False
    finished = False
    overruns = 0  # ZeroMQ loses nothing: what cannot be sent stays in the detector, and is missing by its index

    def __init__(
        self, address: str, *, channel: str | None = None, first: int = 0, connections: int = 1, queue: int = 1000
    ) -> None:
        host, _, port = address.rpartition(":") if ":" in address else (address, "", str(PORT))
        if not host or not port.isdigit() or int(port) > 65535:
            raise InputError("no address of a detector", field="--source", found=address, expected="host:port")
        self.name = f"stream2://{host}:{port}"
        self._endpoint = f"tcp://{host}:{port}"
        self._channel, self._first = channel, first
        self._connections, self._queue = connections, queue
        self._connected = 0

    def __enter__(self) -> Self:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=self._connections)
        self._socket = self._context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, self._queue)
        self._socket.setsockopt(zmq.MAXMSGSIZE, 2 * MOST_FRAME_BYTES)
        # A detector whose cable was pulled says nothing: ask its system every 2 s.
        for option, value in KEEP_ALIVE.items():
            self._socket.setsockopt(option, value)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED)
        try:
            for _ in range(self._connections):
                self._socket.connect(self._endpoint)
        except zmq.ZMQError as error:
            self.__exit__(None, None, None)
            raise InputError(f"cannot be reached ({error})", field="--source", found=self.name) from None
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.disable_monitor()
        self._monitor.close()
        self._socket.close()
        self._context.term()

    def poll(self, timeout: float) -> list[Record]:
        """As `live.records.Source`."""
        ready = dict(self._poller.poll(int(max(timeout, 0) * 1000)))
        records = self._connections_changed() if self._monitor in ready else []
        while self._socket in ready and len(records) < MOST_AT_ONCE:
            try:
                message = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            records.append(dectris.read(message, now(), channel=self._channel, first=self._first))
        return records

    def _connections_changed(self) -> list[Record]:
        records: list[Record] = []
        while self._monitor.poll(0):
            connected = recv_monitor_message(self._monitor)["event"] == zmq.EVENT_CONNECTED
            before, self._connected = self._connected, self._connected + (1 if connected else -1)
            if self._connected > 0 and before <= 0:
                records.append(SourceBack(now()))
            elif self._connected <= 0 and before > 0:
                records.append(SourceLost(f"{self.name} closed the connection", now()))
        return records
