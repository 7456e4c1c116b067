"""Dectris stream2: real ZeroMQ sockets at both ends, and messages that lie."""

import struct

import cbor2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from receiving import PATIENCE, assert_true_to, corrupt, frames_of, gathered, measured, of_kind, transmitted

from ptychow.errors import InputError
from ptychow.live import dectris
from ptychow.live.records import Corrupt, EncodedFrame, End, SourceBack, SourceLost, Start
from ptychow.live.simulated.faults import Faults
from ptychow.live.simulated.pva import PositionServer
from ptychow.live.simulated.stream2 import Stream2Server
from ptychow.live.sources.stream2 import Stream2Source
from ptychow.scan import NOT_BELIEVED, Geometry

DTYPES = ["u1", "<u2", ">u2", "<u4", ">u4", "<i4", "<i2", "i1", "<u8", "<f4", ">f8", "<f2"]
TAG = cbor2.CBORTag


@pytest.fixture
def positions(tmp_path):
    path = tmp_path / "positions.npy"
    np.save(path, measured().positions)
    return f"{path}?columns=1,2&unit=m"


@pytest.mark.parametrize("codec", ["bslz4", "lz4", "none"])
def test_a_scan_arrives(codec, positions):
    scan = measured()
    sent, records, sources = transmitted(Stream2Server(scan, count=60, codec=codec), positions)
    assert sent["frames"] == 60 and sent["lost"] == 0
    assert [record.index for record in frames_of(records)] == list(range(60))
    assert_true_to(scan, records)
    (start,) = of_kind(records, Start)
    assert (start.expected, start.frame_shape, start.saturation) == (60, (16, 24), 1000)
    np.testing.assert_array_equal(start.mask, scan.mask)
    assert start.geometry.distance == 2.0 and start.geometry.detector_pixel == 75e-6
    assert start.geometry.wavelength == pytest.approx(1.5e-10)
    assert "simulated" in start.metadata["detector detector_description"]
    assert {end.reason for end in of_kind(records, End)} == {"end of series", "all positions known"}
    assert of_kind(records, SourceBack) and not of_kind(records, SourceLost)
    assert not sources[0].waits and sources[1].waits


def test_faults_lose_nothing_that_was_sent(positions):
    scan = measured()
    faults = Faults(drop=0.2, duplicate=0.2, garbage=0.3, reorder=7, seed=3)
    sent, records, _ = transmitted(Stream2Server(scan, count=60), positions, faults=faults)
    indices = [record.index for record in frames_of(records)]
    assert len(indices) == sent["frames"] + sent["duplicates"] and len(set(indices)) == sent["frames"]
    assert sent["frames"] + sent["dropped"] == 60 and sent["dropped"] > 0 and sent["duplicates"] > 0
    assert indices != sorted(indices)
    assert len(corrupt(records)) == sent["garbage"] > 0
    assert_true_to(scan, records)


def test_a_restarted_scan_is_a_new_series(positions):
    _, records, _ = transmitted(Stream2Server(measured(), count=60), positions, faults=Faults(restart=20))
    frames = frames_of(records)
    assert [(record.series, record.index) for record in frames] == [(0, k) for k in range(20)] + [
        (1, k) for k in range(60)
    ]
    assert [start.series for start in of_kind(records, Start)] == [0, 1]


def test_a_detector_that_vanishes_comes_back(positions):
    _, records, _ = transmitted(Stream2Server(measured(), count=60), positions, faults=Faults(vanish=0.5), rate=40)
    states = [type(record) for record in records if isinstance(record, SourceLost | SourceBack)]
    assert states == [SourceBack, SourceLost, SourceBack]
    assert frames_of(records)[-1].index == 59


def test_a_detector_that_was_switched_off_and_on_counts_its_series_anew():
    """Its numbers fall back; those of the records do not."""
    scan = measured()
    with Stream2Server(scan, count=3) as server, Stream2Source(server.source.removeprefix("stream2://")) as source:
        records: list = []
        for count, series in enumerate((7, 8, 1, 2), 1):
            if series == 1:
                server.vanish()
                records += gathered([source], lambda came: of_kind(came, SourceLost))
                server.come_back()
            assert server.wait_for_client(PATIENCE)
            server.start(series)
            assert server.frame(0, series)
            server.end(series)
            records += gathered([source], lambda came: of_kind(came, End))
            assert len(of_kind(records, Start)) == count
    for kind in (Start, EncodedFrame, End):
        assert [record.series for record in of_kind(records, kind)] == [7, 8, 9, 10]


def test_late_positions_come_in_a_table():
    scan = measured()
    server, stage = Stream2Server(scan, count=60), PositionServer(scan)
    _, records, _ = transmitted(server, "table", stage=stage, faults=Faults(late_positions=0.3))
    assert_true_to(scan, records)
    late = [record.received_at for record in records if hasattr(record, "position")]
    assert len(late) == 60
    assert min(late) - min(record.received_at for record in frames_of(records)) > 0.25


def test_several_receivers_share_a_scan():
    scan = measured()
    with Stream2Server(scan, count=60) as server:
        address = server.source.removeprefix("stream2://")
        with Stream2Source(address) as one, Stream2Source(address, connections=2) as two:
            gathered([one, two], lambda records: len(of_kind(records, SourceBack)) == 2)
            # The receivers know of a connection before the server does, and what it sends to nobody is lost.
            assert server.wait_for_client(PATIENCE)
            assert all([server.frame(index, 0) for index in range(60)])
            records = gathered([one, two], lambda records: len(frames_of(records)) == 60)
    assert sorted(record.index for record in frames_of(records)) == list(range(60))
    assert_true_to(scan, records)


@pytest.mark.parametrize("codec", ["bslz4", "lz4", "none"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_type_and_codec(dtype, codec):
    frame = measured().frames[0].astype(dtype)
    message = dectris.image_message(3, 8, {"threshold_1": dectris.pack(frame, codec)})
    record = dectris.read(message, 1.5, first=1)
    assert (record.index, record.series, record.received_at) == (7, 3, 1.5)
    np.testing.assert_array_equal(record.decode().frame, frame)


def test_type_tags_are_those_of_rfc_8746():
    published = {64: "u1", 65: ">u2", 66: ">u4", 69: "<u2", 70: "<u4", 72: "i1", 73: ">i2", 78: "<i4", 85: "<f4"}
    for tag, dtype in published.items():
        assert dectris.number_type(tag) == np.dtype(dtype)
        assert dectris.number_tag(np.dtype(dtype)) == tag
    for tag in (63, 76, 83, 87, 88):
        with pytest.raises(dectris.MessageError):
            dectris.number_type(tag)


def test_the_channel_is_chosen():
    one, two = measured().frames[:2]
    channels = {name: dectris.pack(frame, "bslz4") for name, frame in (("threshold_1", one), ("threshold_2", two))}
    message = dectris.image_message(0, 0, channels)
    np.testing.assert_array_equal(dectris.read(message, 0.0).decode().frame, one)
    np.testing.assert_array_equal(dectris.read(message, 0.0, channel="threshold_2").decode().frame, two)
    wrong = dectris.read(message, 0.0, channel="difference")
    assert isinstance(wrong, Corrupt) and "threshold_2" in wrong.reason and wrong.index == 0
    masks = {"threshold_1": np.zeros((16, 24), "u4"), "threshold_2": np.eye(16, 24, dtype="u4")}
    start = dectris.read(dectris.start_message(0, (16, 24), pixel_mask=masks), 0.0, channel="threshold_2")
    np.testing.assert_array_equal(start.mask, masks["threshold_2"] == 0)


def image(data, **fields):
    return cbor2.dumps({"type": "image", "series_id": 1, "image_id": 0, "data": {"a": data}, **fields})


def array(dimensions, tag, data):
    return TAG(40, [dimensions, TAG(tag, data)])


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"garbage",
        b"\x5b" + struct.pack(">Q", 2**60),
        b"\x9b" + struct.pack(">Q", 2**60),
        b"\xbb" + struct.pack(">Q", 2**60),
        b"\x81" * 100_000,
        cbor2.dumps([1, 2]),
        cbor2.dumps({"type": "image"}),
        cbor2.dumps({"type": 10**5000, "series_id": 1}),
        cbor2.dumps({"type": "image", "series_id": 10**5000, "image_id": 0}),
        cbor2.dumps({"type": "image", "series_id": 1, "image_id": -1}),
        cbor2.dumps({"type": "image", "series_id": 1, "image_id": 2**62}),
        cbor2.dumps({"type": "image", "series_id": 1, "image_id": True}),
        cbor2.dumps({"type": "image", "series_id": 1, "image_id": 0, "data": []}),
        cbor2.dumps({"type": "image", "series_id": 1, "image_id": 0, "data": {}}),
        image(7),
        image(array([2**40, 2**40], 69, b"ab")),
        image(array([0, 0], 69, b"")),
        image(array([-4, -4], 69, bytes(32))),
        image(array([4], 69, bytes(8))),
        image(array([4, 4], 83, bytes(256))),
        image(array([4, 4], 69, bytes(31))),
        image(array([4, 4], 69, TAG(56500, ["bslz4", 2, b"abc"]))),
        image(array([4, 4], 69, TAG(56500, ["bslz4", 10**30, bytes(40)]))),
        image(array([4, 4], 69, TAG(56500, ["zstd", 2, b"abc"]))),
        image(array([4, 4], 69, TAG(56500, "bslz4"))),
        cbor2.dumps({"type": "start", "series_id": 1}),
        cbor2.dumps({"type": "start", "series_id": 1, "image_size_x": 2**40, "image_size_y": 2**40}),
        dectris.start_message(1, (4, 4), pixel_mask={"a": np.zeros((5, 5), "u4")}),
        dectris.start_message(1, (4, 4), saturation_value="many"),
        dectris.start_message(1, (4, 4), number_of_images=-3),
    ],
)
def test_messages_that_lie_are_corrupt(message):
    record = dectris.read(message, 0.0)
    if isinstance(record, EncodedFrame):
        record = record.decode()
    assert isinstance(record, Corrupt) and record.reason


@pytest.mark.parametrize("nonsense", [0, -1, 10**400, "far", None, float("nan"), float("inf"), [1, 2], 1e-300])
def test_a_geometry_nobody_told_is_unknown(nonsense):
    fields = {"incident_wavelength": nonsense, "detector_translation": [0, 0, nonsense], "pixel_size_x": nonsense}
    start = dectris.read(dectris.start_message(1, (4, 4), **fields), 0.0)
    assert isinstance(start, Start)
    assert start.geometry.wavelength is start.geometry.distance is start.geometry.detector_pixel is None


def test_frames_before_the_first_are_not_expected():
    assert dectris.read(dectris.start_message(1, (4, 4), number_of_images=12), 0.0, first=2).expected == 10


def test_a_mask_and_a_limit_nobody_told_are_unknown():
    start = dectris.read(dectris.start_message(1, (4, 4), pixel_mask={}, saturation_value=None), 0.0)
    assert isinstance(start, Start) and start.mask is None and start.saturation is None


def test_a_geometry_that_cannot_be_costs_nothing_else():
    masks = {"a": np.zeros((4, 4), np.uint32)}
    fields = {"detector_translation": [0, 0, 1950.0], "incident_wavelength": 1.2, "pixel_mask": masks}
    start = dectris.read(dectris.start_message(1, (4, 4), number_of_images=7, **fields), 0.0)
    assert isinstance(start, Start) and start.expected == 7 and start.mask.all()
    assert start.geometry == Geometry()
    assert start.metadata[NOT_BELIEVED].startswith("distance: no instrument has such a length; found 1950")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 400))
def test_damaged_messages_never_raise(noise, place):
    good = dectris.image_message(0, 3, {"a": dectris.pack(measured().frames[0], "bslz4")})
    record = dectris.read(good[:place] + noise + good[place + len(noise) :], 0.0)
    if isinstance(record, EncodedFrame):
        record.decode()


def test_addresses():
    assert Stream2Source("dcu").name == "stream2://dcu:31001"
    for wrong in ("", ":5", "host:port", "host:99999"):
        with pytest.raises(InputError):
            Stream2Source(wrong)
