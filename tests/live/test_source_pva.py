"""EPICS pvAccess: real servers and clients on the loopback interface."""

import time
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from p4p import Type, Value
from p4p.nt import NTScalar, NTTable
from p4p.server.raw import SharedPV
from receiving import assert_true_to, corrupt, frames_of, gathered, measured, of_kind, transmitted

from ptychow.errors import InputError
from ptychow.live import ntndarray
from ptychow.live.codecs import CODECS, CodecError, encode
from ptychow.live.ntndarray import EPICS_EPOCH
from ptychow.live.records import Corrupt, FrameRecord, NoPosition, PositionRecord, SourceBack, SourceLost, Start
from ptychow.live.simulated.faults import Faults
from ptychow.live.simulated.pva import PositionServer, PvaServer, port_of, serve
from ptychow.live.sources.pva import PvaSource
from ptychow.live.sources.pva_positions import PvaPositions, PvaTable

ATTRIBUTES = "attributes:Y,X?unit=m"
SCAN = measured()


def stamp(seconds=None):
    return {"timeStamp.secondsPastEpoch": int(time.time()) if seconds is None else seconds, "timeStamp.nanoseconds": 1}


def ntndarray_of(frame, unique_id=1, codec="none", taken=None):
    taken = time.time_ns() if taken is None else taken
    return ntndarray.build(frame.shape, frame.dtype, encode(frame, codec), codec, unique_id, taken)


@contextmanager
def channels(**values):
    """(server's channels by name, "host:port") of channels with these first values."""
    opened = {name: SharedPV(initial=value) for name, value in values.items()}
    server = serve(opened, 0)
    try:
        yield opened, f"127.0.0.1:{port_of(server)}"
    finally:
        server.stop()


@contextmanager
def listening(source):
    """A source that has connected."""
    with source:
        gathered([source], lambda records: of_kind(records, SourceBack))
        time.sleep(0.2)  # what the channels had before
        source.poll(0.0)
        yield source


@pytest.mark.parametrize("codec", ["none", "bslz4", "blosc"])
def test_a_scan_arrives(codec):
    sent, records, sources = transmitted(PvaServer(SCAN, codec=codec), ATTRIBUTES)
    assert sent["frames"] == 60
    assert [record.index for record in frames_of(records)] == list(range(60))
    assert [record.index for record in of_kind(records, PositionRecord)] == list(range(60))
    assert_true_to(SCAN, records)
    (start,) = of_kind(records, Start)
    assert start.frame_shape == (16, 24)
    assert len(sources) == 1 and not sources[0].waits and sources[0].overruns == 0


def test_faults_lose_nothing_that_was_sent():
    faults = Faults(drop=0.2, duplicate=0.2, garbage=0.3, reorder=7, seed=4)
    sent, records, sources = transmitted(PvaServer(SCAN, codec="lz4"), ATTRIBUTES, faults=faults)
    indices = [record.index for record in frames_of(records)]
    assert len(indices) == sent["frames"] + sent["duplicates"] and len(set(indices)) == sent["frames"]
    assert len(corrupt(records)) == sent["garbage"] > 0 and sent["dropped"] > 0
    assert [start.series for start in of_kind(records, Start)] == [0]
    assert sources[0].overruns > 0  # gaps in the counter, wherever they came from
    assert_true_to(SCAN, records)


def test_attributes_that_are_no_position_cost_no_frame():
    _, records, _ = transmitted(PvaServer(SCAN), "attributes:Y,TIME?unit=m")
    assert len(frames_of(records)) == 60 and not of_kind(records, Corrupt)
    assert "no attribute 'TIME', but" in of_kind(records, NoPosition)[0].reason


def test_a_restarted_scan_is_a_new_series():
    _, records, _ = transmitted(PvaServer(SCAN), ATTRIBUTES, faults=Faults(restart=20))
    expected = [(0, k) for k in range(20)] + [(1, k) for k in range(60)]
    assert [(record.series, record.index) for record in frames_of(records)] == expected
    assert [(record.series, record.index) for record in of_kind(records, PositionRecord)] == expected
    assert [start.series for start in of_kind(records, Start)] == [0, 1]


@pytest.mark.slow  # a client of pvAccess looks for a server every ten seconds
def test_a_detector_that_vanishes_comes_back():
    with PvaServer(SCAN) as server, listening(PvaSource("PTYCHOW:SIM:Pva1:Image", server=address(server))) as source:
        server.start(0)
        server.frame(0, 0)
        gathered([source], frames_of)
        server.vanish()
        lost = gathered([source], lambda records: of_kind(records, SourceLost))
        assert "Image" in of_kind(lost, SourceLost)[0].reason
        server.come_back()
        back = gathered([source], lambda records: of_kind(records, SourceBack))
        time.sleep(0.2)
        server.frame(1, 0)
        assert frames_of(back + gathered([source], frames_of))[0].index == 1


def address(server):
    return server.source.partition("server=")[2]


def test_the_first_points_of_a_later_scan_are_its_own():
    """Two waveforms come one after the other: the new y must not meet the last scan's x."""
    source = PvaPositions("Y", "X", unit="m")
    told = [source._waveform(role, values) for role, values in ((0, [1.0, 2.0, 3.0]), (1, [4.0, 5.0, 6.0]))]
    assert [record.position for record in told[1]] == [(1.0, 4.0), (2.0, 5.0), (3.0, 6.0)]
    told = [
        source._waveform(role, values) for role, values in ((0, [7.0]), (1, [8.0]), (0, [7.0, 9.0]), (1, [8.0, 1.0]))
    ]
    assert [(record.index, record.position) for records in told for record in records] == [
        (0, (7.0, 8.0)),
        (1, (9.0, 1.0)),
    ]


def test_a_later_scan_of_as_many_points_has_its_own_positions():
    """Waveforms and tables that are published whole, at the end of each scan."""
    source = PvaPositions("Y", "X", unit="m")
    for y, x in (([1.0, 2.0], [4.0, 5.0]), ([1.5, 2.5], [4.5, 5.5]), ([1.7, 2.7, 3.7], [4.7, 5.7, 6.7])):
        told = source._waveform(0, np.array(y)) + source._waveform(1, np.array(x))
        assert [record.position for record in told] == list(zip(y, x, strict=True))
    table, kind = PvaTable("POS", ("y", "x"), unit="m"), NTTable([("y", "d"), ("x", "d")])
    for rows in ([[1.0, 4.0], [2.0, 5.0]], [[1.5, 4.5], [2.5, 5.5]], [[1.7, 4.7], [2.7, 5.7], [3.7, 6.7]]):
        y, x = np.array(rows).T
        told = table._rows(Value(kind.type, {"value": {"y": y, "x": x}}))
        assert [record.position for record in told] == [tuple(row) for row in rows]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("then", [([1.0, 2.0], [4.0, 5.0]), ([1.0, 2.0], [7.0, 8.0]), ([3.0, 2.0], [4.0, 5.0])])
def test_a_plan_that_is_used_again_is_told_again(first, then):
    """Whole, or but for one axis; whichever of the two waveforms comes first."""
    source = PvaPositions("Y", "X", unit="m")
    for plan in (([1.0, 2.0], [4.0, 5.0]), then, then):
        told = [record for role in (first, 1 - first) for record in source._waveform(role, np.array(plan[role]))]
        assert [(record.index, record.position) for record in told] == list(enumerate(zip(*plan, strict=True)))
    table, kind = PvaTable("POS", ("y", "x"), unit="m"), NTTable([("y", "d"), ("x", "d")])
    for _ in range(2):
        told = table._rows(Value(kind.type, {"value": {"y": np.array(then[0]), "x": np.array(then[1])}}))
        assert [record.position for record in told] == list(zip(*then, strict=True))


@pytest.mark.parametrize("how", ["table", "numbers"])
def test_positions_come_in_channels_of_their_own(how):
    faults = Faults(late_positions=0.1, duplicate=0.2)
    _, records, _ = transmitted(PvaServer(SCAN, attributes=False), how, stage=PositionServer(SCAN), faults=faults)
    assert {record.index for record in of_kind(records, PositionRecord)} == set(range(60))
    assert len(frames_of(records)) >= 60 and not of_kind(records, Corrupt)
    assert_true_to(SCAN, records)


def test_positions_come_in_waveforms_that_grow():
    waveform = NTScalar("ad")
    y, x = SCAN.positions.T * 1e6
    first = Value(waveform.type, {"value": y[:5], **stamp(EPICS_EPOCH)})  # the last scan's
    with (
        channels(Y=first, X=first) as (served, server),
        listening(PvaPositions("Y", "X", unit="um", server=server)) as source,
    ):
        for last in (1, 7, 60):
            served["Y"].post(Value(waveform.type, {"value": y[:last], **stamp()}))
            served["X"].post(Value(waveform.type, {"value": x[:last], **stamp()}))
        records = gathered([source], lambda records: len(records) >= 60)
        assert [record.index for record in records] == list(range(60))
        assert_true_to(SCAN, records)


@pytest.mark.parametrize("retained", [False, True])
def test_positions_of_the_last_scan_are_taken_only_where_they_are_asked_for(retained):
    table = NTTable([("y", "d"), ("x", "d")])
    old = Value(table.type, {"value": {"y": [1.0, 2.0], "x": [3.0, 4.0]}, **stamp(int(time.time()) - 60)})
    with (
        channels(POS=old) as (_, server),
        PvaTable("POS", ("y", "x"), unit="px", server=server, retained=retained) as source,
    ):
        records = gathered([source], lambda records: len(records) >= 3, patience=3.0 if retained else 0.5)
        assert [record.position for record in of_kind(records, PositionRecord)] == (
            [(1, 3), (2, 4)] if retained else []
        )
        assert ["POS: passed over" in record.reason for record in of_kind(records, Corrupt)] == [True] * (not retained)


def test_a_table_that_grows_and_one_in_pieces():
    table = NTTable([("n", "l"), ("y", "d"), ("x", "d")])

    def rows(first, last):
        y, x = SCAN.positions[first:last].T
        return Value(table.type, {"value": {"n": np.arange(first, last), "y": y, "x": x}, **stamp()})

    for index, begin in ((None, lambda last: 0), ("n", lambda last: last - 20)):
        with (
            channels(POS=rows(0, 0)) as (served, server),
            listening(PvaTable("POS", ("y", "x"), index=index, unit="m", server=server)) as source,
        ):
            for last in (20, 40, 60):
                served["POS"].post(rows(begin(last), last))
            records = gathered([source], lambda records: len(records) >= 60)
            assert [record.index for record in records] == list(range(60))
            assert_true_to(SCAN, records)


def test_positions_that_are_none():
    def unplaced(records):
        return of_kind(records, NoPosition)

    number, table = NTScalar("d"), NTTable([("y", "d")])
    nothing = Value(number.type, {"value": np.nan, **stamp()})
    with channels(Y=nothing, X=nothing, N=nothing, T=Value(table.type, {**stamp()})) as (served, server):
        with listening(PvaPositions("Y", "X", "N", unit="px", server=server)) as source:
            for name in ("Y", "X", "N"):
                served[name].post(Value(number.type, {"value": np.nan, **stamp(int(time.time()) + 5)}))
            assert "NaN" in unplaced(gathered([source], unplaced))[0].reason
            never = {"timeStamp.secondsPastEpoch": 0, "timeStamp.nanoseconds": 0}
            served["Y"].post(Value(number.type, {"value": 1.0, **never}))
            assert "without its time" in unplaced(gathered([source], unplaced))[0].reason
        with PvaTable("T", ("y", "x"), unit="px", server=server) as source:
            assert "y, x" in unplaced(gathered([source], unplaced))[0].reason
        with PvaPositions("Y", "X", unit="px", server=server, retained=True) as source, pytest.raises(InputError):
            gathered([source], lambda _: False)


@pytest.mark.parametrize("codec", [*CODECS])
@pytest.mark.parametrize("dtype", ntndarray.UNION_FIELDS)
def test_every_number_type_and_codec(dtype, codec):
    frame = SCAN.frames[0].astype(dtype)
    record = ntndarray.read_frame(ntndarray_of(frame, codec=codec), 3, 0.5, 2).decode()
    np.testing.assert_array_equal(record.frame, frame)
    assert (record.frame.dtype, record.index, record.series) == (frame.dtype, 3, 2)


@pytest.mark.parametrize("dtype", ["uint16", "int32", "uint64", "float32", "float64", "int64", "uint32", "int16"])
def test_both_numberings_of_types_are_understood(dtype):
    size = np.dtype(dtype).itemsize * 6
    for types in (ntndarray.SCALAR_TYPES, ntndarray.NDARRAY_TYPES):
        assert ntndarray.read_type(types.index(dtype), size, (2, 3)) == np.dtype(dtype)
    for ordinal in (-1, 99, None, 1.5):
        with pytest.raises(CodecError):
            ntndarray.read_type(ordinal, size, (2, 3))


def test_jpeg_is_refused_with_the_reason():
    value = ntndarray_of(SCAN.frames[0].astype("u1"), codec="zlib")
    value["codec.name"] = "jpeg"
    assert "changes the counts" in ntndarray.read_frame(value, 0, 0.0, 0).decode().reason


def with_field(name, content):
    value = ntndarray_of(SCAN.frames[0], unique_id=5, codec="lz4" if "ompressed" in name else "none")
    value[name] = content
    return value


LIES = {
    "no image": Value(ntndarray.TYPE, {"uniqueId": 5, **stamp()}),
    "no dimensions": with_field("dimension", []),
    "huge": with_field("dimension", [{"size": 2**31 - 1}, {"size": 2**31 - 1}]),
    "negative": with_field("dimension", [{"size": -16}, {"size": -24}]),
    "colour": with_field("dimension", [{"size": 3}, {"size": 24}, {"size": 16}]),
    "another size": with_field("dimension", [{"size": 24}, {"size": 15}]),
    "more compressed than there is": with_field("compressedSize", 10**9),
    "larger than its dimensions": with_field("uncompressedSize", 10**12),
    "before the first": with_field("uniqueId", 0),
    "negative number": with_field("uniqueId", -7),
    "no NTNDArray": Value(Type([("value", "d"), ("uniqueId", "i")]), {"value": 1.0, "uniqueId": 5}),
    "nothing of it": Value(Type([("hello", "s")]), {"hello": "world"}),
}


@pytest.mark.parametrize("lie", LIES)
def test_arrays_that_lie_are_corrupt(lie):
    source = PvaSource("X")
    source._read(ntndarray_of(SCAN.frames[0], unique_id=1, taken=1_000_000_000), 0.0)
    (record,) = source._read(LIES[lie], 0.0)
    record = record if isinstance(record, Corrupt) else record.decode()
    assert isinstance(record, Corrupt) and record.reason
    (good,) = source._read(ntndarray_of(SCAN.frames[1], unique_id=6), 0.0)
    assert (good.index, good.series) == (5, 0)


def test_an_image_of_long_before_is_not_of_this_scan():
    old = ntndarray_of(SCAN.frames[0], unique_id=900, taken=(int(time.time()) - 3600) * 10**9)
    with channels(IMAGE=old) as (served, server), PvaSource("IMAGE", server=server, first=None) as source:
        gathered([source], lambda records: of_kind(records, SourceBack))
        time.sleep(0.2)
        served["IMAGE"].post(ntndarray_of(SCAN.frames[1], unique_id=901))
        (frame,) = frames_of(gathered([source], frames_of))
        assert frame.index == 0
        np.testing.assert_array_equal(frame.frame, SCAN.frames[1])


# Seconds since 1970 that a clock shows which is half a minute behind, counts from boot, or was never set.
CLOCKS = {"behind": time.time() - 30, "from boot": 5000.0, "never set": float(EPICS_EPOCH)}


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_wrong_clock_costs_no_frame(clock):
    def image(number, seconds):
        value = ntndarray_of(SCAN.frames[number % 60], unique_id=number, taken=int((CLOCKS[clock] + seconds) * 1e9))
        value["dataTimeStamp.secondsPastEpoch"] = 7  # a driver's own
        return value

    goes_on = clock != "never set"
    with (
        channels(IMAGE=image(900, 0)) as (served, server),
        listening(PvaSource("IMAGE", server=server)) as source,
    ):
        for number in range(1, 61):
            served["IMAGE"].post(image(number, goes_on * number * 1e-3))
        records = gathered([source], lambda records: len(frames_of(records)) >= 60)
        assert [record.index for record in frames_of(records)] == list(range(60)) and not corrupt(records)


def test_what_a_channel_had_before_is_passed_over_with_a_word():
    old = ntndarray_of(SCAN.frames[0], unique_id=900, taken=(int(time.time()) - 3600) * 10**9)
    with channels(IMAGE=old) as (served, server), PvaSource("IMAGE", server=server) as source:
        (passed,) = corrupt(gathered([source], corrupt))
        assert passed.index is None and "IMAGE: passed over" in passed.reason and "3,60" in passed.reason
        served["IMAGE"].post(old)  # as before: its alarm, say, has changed
        assert corrupt(gathered([source], corrupt)) == [passed]


@pytest.mark.parametrize("how", ["table", "waveforms", "numbers"])
def test_a_wrong_clock_costs_no_position(how):
    table, number, waveform = NTTable([("y", "d"), ("x", "d")]), NTScalar("d"), NTScalar("ad")
    y, x = SCAN.positions.T

    def at(seconds):
        return stamp(int(CLOCKS["behind"]) + seconds)

    names = {"table": ("T",), "waveforms": ("Y", "X"), "numbers": ("Y", "X", "N")}[how]
    kind = {"table": table, "waveforms": waveform, "numbers": number}[how]
    last = {"table": {"y": y[:1], "x": x[:1]}, "waveforms": y[:1], "numbers": 7.0}[how]
    with channels(**{name: Value(kind.type, {"value": last, **at(0)}) for name in names}) as (served, server):
        source = (
            PvaTable("T", ("y", "x"), unit="m", server=server)
            if how == "table"
            else PvaPositions(*names, unit="m", server=server)
        )
        with listening(source):
            for k in range(60):
                if how == "table":
                    values = {"T": {"y": y[: k + 1], "x": x[: k + 1]}}
                elif how == "waveforms":
                    values = {"Y": y[: k + 1], "X": x[: k + 1]}
                else:
                    values = {"Y": y[k], "X": x[k], "N": float(k)}
                for name, value in values.items():
                    served[name].post(Value(kind.type, {"value": value, **at(k + 1)}))
            records = gathered([source], lambda records: len(records) >= 60)
            assert [record.index for record in of_kind(records, PositionRecord)] == list(range(60))
            assert_true_to(SCAN, records)


def test_a_damaged_first_frame_does_not_take_the_start_along():
    source = PvaSource("X", frames=60)
    damaged = ntndarray_of(SCAN.frames[0], unique_id=1)
    damaged["dimension"] = []
    records = [
        record
        for value in (damaged, *(ntndarray_of(SCAN.frames[k], unique_id=k + 1) for k in (1, 2)))
        for record in source._read(value, 0.0)
    ]
    assert [type(record) for record in records] == [Corrupt, Start, FrameRecord, FrameRecord]
    assert records[1].expected == 60 and records[0].index == 0


def test_the_first_frame_that_comes_is_that_of_each_series():
    """A receiver that came late, and a detector that was started again."""
    source, frame = PvaSource("IMAGE", first=None), SCAN.frames[0]
    numbers = [500, 501, 1, 2, 3]
    values = [ntndarray_of(frame, number, taken=when) for when, number in enumerate(numbers, 1)]
    told = frames_of(record for value in values for record in source._read(value, 0.0))
    assert [(record.series, record.index) for record in told] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


def test_a_queue_that_is_too_short_is_told():
    with (
        channels(IMAGE=Value(ntndarray.TYPE, {})) as (served, server),
        listening(PvaSource("IMAGE", server=server, queue=2)) as source,
    ):
        # The first is received alone, so that what is missing lies between two that came.
        served["IMAGE"].post(ntndarray_of(SCAN.frames[0], unique_id=1))
        records = gathered([source], frames_of)
        for number in range(2, 301):
            served["IMAGE"].post(ntndarray_of(SCAN.frames[0], unique_id=number))
        records += gathered([source], lambda records: frames_of(records[-1:]) and records[-1].index == 299)
        assert source.overruns + len(frames_of(records)) == 300
        assert source.overruns > 0


def test_nothing_is_broadcast():
    with ExitStack() as stack:
        for server in (PvaServer(SCAN), PositionServer(SCAN)):
            configuration = stack.enter_context(server)._server.conf()
            assert configuration["EPICS_PVAS_INTF_ADDR_LIST"] == "127.0.0.1"
            assert configuration["EPICS_PVAS_BEACON_ADDR_LIST"] == "127.0.0.1"
            assert configuration["EPICS_PVAS_AUTO_BEACON_ADDR_LIST"] == "NO"
        source = stack.enter_context(PvaSource("X", server="127.0.0.1:1"))
        configuration = source._channels._context.conf()
        assert configuration["EPICS_PVA_ADDR_LIST"] == "" and configuration["EPICS_PVA_AUTO_ADDR_LIST"] == "NO"
