"""Dectris stream2: frames from a detector's ZeroMQ PUSH socket.

PUSH deals its messages to whoever pulls: several receivers (processes, machines, connections) share a scan between
them, in any order, and the index joins what they received.
"""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType
from typing import Self

from ptychow.errors import InputError, MissingExtraError
from ptychow.live import dectris
from ptychow.live.codecs import MOST_FRAME_BYTES
from ptychow.live.records import Corrupt, EncodedFrame, End, Record, SourceBack, SourceLost, Start, now
from ptychow.live.sources.base import LOOK_AFTER, LOOK_AGAIN, unreachable

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
        self._host, self._port = host, int(port)
        self._channel, self._first = channel, first
        self._connections, self._queue = connections, queue
        self._connected = 0
        self._was_lost = False  # since the last Start
        self._unique: str | None = None  # what the detector calls the series that it announced last
        self._newest, self._before = -1, 0  # largest series told; what to add to the detector's numbers

    def __enter__(self) -> Self:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=self._connections)
        self._socket = self._context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, self._queue)
        self._socket.setsockopt(zmq.MAXMSGSIZE, 2 * MOST_FRAME_BYTES)
        # A detector whose cable was pulled says nothing: ask its system every 2 s.
        for option, value in KEEP_ALIVE.items():
            self._socket.setsockopt(option, value)
        # Not EVENT_CONNECTED: whatever else listens there (a wrong port) is no detector.
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._look_at = now() + LOOK_AFTER
        try:
            for _ in range(self._connections):
                self._socket.connect(f"tcp://{self._host}:{self._port}")
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
            records.append(self._numbered(dectris.read(message, now(), channel=self._channel, first=self._first)))
        return records or self._why_not_connected()

    def _numbered(self, record: Start | EncodedFrame | End | Corrupt) -> Record:
        """The record with a number of its series that grows, whatever the detector's own do: those of a detector that
        was switched off and on begin again.
        """
        if record.series is None:
            return record
        if isinstance(record, Start):
            number, unique = record.series + self._before, record.metadata.get("detector series_unique_id")
            if self._was_lost and (number < self._newest or (number == self._newest and unique != self._unique)):
                self._before = self._newest + 1 - record.series
            self._was_lost, self._unique = False, unique
        if isinstance(record, Start | EncodedFrame):
            self._newest = max(self._newest, record.series + self._before)
        return replace(record, series=record.series + self._before) if self._before else record

    def _connections_changed(self) -> list[Record]:
        records: list[Record] = []
        while self._monitor.poll(0):
            connected = recv_monitor_message(self._monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
            before, self._connected = self._connected, max(self._connected + (1 if connected else -1), 0)
            if self._connected > 0 and before == 0:
                records.append(SourceBack(now()))
            elif self._connected == 0 and before > 0:
                self._was_lost = True
                self._look_at = now() + LOOK_AFTER
                records.append(SourceLost("it closed the connection", now()))
        return records

    def _why_not_connected(self) -> list[Record]:
        """The likely cause, now and then, while there is no connection."""
        if self._connected or now() < self._look_at:
            return []
        reason = unreachable(self._host, self._port) or "what answers there is no stream2 (ZeroMQ): is the port right?"
        self._look_at = now() + LOOK_AGAIN
        return [SourceLost(reason, now())]
