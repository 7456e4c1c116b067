"""A real server at one end, a real source at the other."""

from __future__ import annotations

import time
from contextlib import ExitStack
from threading import Thread

import numpy as np

from ptychow.live.records import Corrupt, EncodedFrame, FrameRecord, PositionRecord
from ptychow.live.simulated.detector import send
from ptychow.live.simulated.faults import Faults
from ptychow.live.sources import open_sources
from ptychow.scan import Geometry, Scan

# A loaded machine is slow to start threads; nothing here waits so long where all is well.
PATIENCE = 30.0


def measured(count=60, size=(16, 24), dtype=np.uint16, seed=0) -> Scan:
    """Counts that differ from frame to frame, at random positions, with a mask, a saturation and a geometry."""
    rng = np.random.default_rng(seed)
    mask = np.ones(size, bool)
    mask[3, 4:7] = False
    return Scan(
        frames=rng.poisson(3, (count, *size)).astype(dtype),
        positions=rng.normal(scale=1e-6, size=(count, 2)),
        position_unit="m",
        geometry=Geometry(wavelength=1.5e-10, distance=2.0, detector_pixel=75e-6),
        mask=mask,
        saturation=1000.0,
        name="measured",
    )


def gathered(sources, enough, patience=PATIENCE) -> list:
    """What the sources say until `enough(records)`, or until patience ends."""
    records: list = []
    until = time.monotonic() + patience
    while not enough(records) and time.monotonic() < until:
        for source in sources:
            records += source.poll(0.01)
    return records


def transmitted(server, positions="", *, stage=None, faults=None, count=60, rate=4000.0, source=None):
    """(what was sent, records received, sources) of one scan sent by `server`.

    positions: a POSITIONS string, or the name of the stage's property that has it.
    """
    with ExitStack() as stack:
        server = stack.enter_context(server)
        stage = None if stage is None else stack.enter_context(stage)
        place = positions if stage is None else getattr(stage, positions)
        sources = [stack.enter_context(each) for each in open_sources(source or server.source, place)]
        sent: dict = {}

        def run():
            assert server.wait_for_client(PATIENCE) and (stage is None or stage.wait_for_client(PATIENCE))
            sent.update(send(server, count, rate, faults or Faults(), positions=stage))

        thread = Thread(target=run)
        thread.start()
        records = gathered(sources, lambda _: not thread.is_alive())
        thread.join()
        records += gathered(sources, lambda _: False, patience=0.3)
        return sent, records, sources


def frames_of(records) -> list[FrameRecord]:
    """The frames among records, decoded; those that are damaged left out."""
    decoded = [record.decode() for record in records if isinstance(record, FrameRecord | EncodedFrame)]
    return [record for record in decoded if isinstance(record, FrameRecord)]


def of_kind(records, kind) -> list:
    return [record for record in records if isinstance(record, kind)]


def assert_true_to(scan, records) -> None:
    """Every frame and every position that came is that of its index."""
    for record in frames_of(records):
        np.testing.assert_array_equal(record.frame, scan.frames[record.index % len(scan)])
    for record in of_kind(records, PositionRecord):
        np.testing.assert_allclose(record.position, scan.positions[record.index % len(scan)], rtol=1e-12)
        assert record.unit == scan.position_unit


def corrupt(records) -> list[Corrupt]:
    """What could not be used, on arrival or when decoded."""
    encoded = [record.decode() for record in records if isinstance(record, EncodedFrame)]
    return of_kind(records, Corrupt) + of_kind(encoded, Corrupt)
