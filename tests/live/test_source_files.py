"""Replay, files being written, stored positions, and what users write for all sources."""

import subprocess
import sys
import time

import h5py
import hdf5plugin
import numpy as np
import pytest
from receiving import assert_true_to, corrupt, frames_of, gathered, measured, of_kind

from ptychow.engines import open_engine
from ptychow.errors import InputError, PtychoWError
from ptychow.formats import read_scan, write_scan
from ptychow.formats.dectris import DETECTOR
from ptychow.live.pipeline import LiveSettings
from ptychow.live.records import End, NoPosition, PositionRecord, Start, now
from ptychow.live.session import Session
from ptychow.live.simulated.faults import Faults
from ptychow.live.simulated.file import FileWriter
from ptychow.live.sources import growing, open_sources
from ptychow.live.sources.growing import GrowingFrames, GrowingPositions
from ptychow.live.sources.replay import ReplaySource
from ptychow.scan import NOT_BELIEVED

SCAN = measured()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Half a second is long for files of this size."""
    monkeypatch.setattr(growing, "SETTLE_SECONDS", 0.5)


def finished(*sources):
    return lambda _: all(source.finished for source in sources)


def test_replay_is_the_scan(tmp_path):
    write_scan(tmp_path / "scan.cxi", SCAN)
    sources = open_sources(str(tmp_path / "scan.cxi"))
    records = gathered(sources, finished(*sources))
    assert [record.index for record in frames_of(records)] == list(range(60))
    assert len(of_kind(records, PositionRecord)) == 60
    assert_true_to(SCAN, records)
    (start,) = of_kind(records, Start)
    assert (start.expected, start.saturation, start.geometry.distance) == (60, 1000.0, 2.0)
    np.testing.assert_array_equal(start.mask, SCAN.mask)
    assert all(source.waits for source in sources)
    assert [end.expected for end in of_kind(records, End)] == [60, 60]
    assert sources[0].poll(0.0) == []


def test_replay_keeps_its_rate():
    source = ReplaySource(SCAN, rate=200.0)
    began = now()
    records = gathered([source], finished(source))
    assert now() - began > 0.29
    assert all(record.received_at >= began + (record.index + 1) / 200 - 1e-3 for record in frames_of(records))
    with ReplaySource(SCAN, rate=0.5) as slow:
        slow.poll(0.0)
        began = now()
        assert slow.poll(0.1) == [] and now() - began < 1.0


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_a_file_being_written(tmp_path, stall):
    from threading import Thread

    from ptychow.live.simulated.detector import send

    path = tmp_path / "scan.h5"
    sources = open_sources(f"watch:{path}?frames=60", f"watch:{path}?datasets=entry/positions&unit=m&idle=1")
    with FileWriter(SCAN, path, count=60) as writer:
        assert writer.source == f"watch:{path}?frames=60" and str(path) in writer.positions
        thread = Thread(target=lambda: send(writer, 60, 400.0, Faults(stall=stall)))
        thread.start()
        records = gathered(sources, lambda records: len(frames_of(records)) == 60)
        thread.join()
    records += gathered(sources, finished(*sources))
    assert [record.index for record in frames_of(records)] == list(range(60))
    assert [record.index for record in of_kind(records, PositionRecord)] == list(range(60))
    assert_true_to(SCAN, records)
    assert of_kind(records, End)[0].reason == "all frames read"
    assert not corrupt(records)


def data_file(folder, number, first, last, numbered=True, source=SCAN.frames):
    with h5py.File(folder / f"run_data_{number:06}.h5", "w") as file:
        frames = file.create_dataset(
            "entry/data/data", data=source[first:last], chunks=(1, 16, 24), **hdf5plugin.Bitshuffle(cname="lz4")
        )
        if numbered:
            frames.attrs["image_nr_low"], frames.attrs["image_nr_high"] = first + 1, last


def master_file(folder):
    with h5py.File(folder / "run_master.h5", "w") as file:
        file[f"{DETECTOR}/detectorSpecific/pixel_mask"] = (~SCAN.mask).astype(np.uint32)
        file[f"{DETECTOR}/detectorSpecific/countrate_correction_count_cutoff"] = 1000
        file[f"{DETECTOR}/detectorSpecific/nimages"] = 1
        file[f"{DETECTOR}/detectorSpecific/ntrigger"] = 60
        file["entry/instrument/beam/incident_wavelength"] = 1.5
        file["entry/instrument/beam/incident_wavelength"].attrs["units"] = "angstrom"
        file[f"{DETECTOR}/detector_distance"] = 0.0  # nobody said
        file[f"{DETECTOR}/x_pixel_size"] = 75e-6
        for number in (1, 2, 3):
            name = f"data_{number:06}"
            file[f"entry/data/{name}"] = h5py.ExternalLink(f"run_{name}.h5", "/entry/data/data")


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("master_first", [True, False])
def test_dectris_files_as_they_appear(tmp_path, numbered, master_first):
    source = GrowingFrames(tmp_path / "run_master.h5", idle=3.0)
    assert source.poll(0.0) == []
    if master_first:
        master_file(tmp_path)
    # The second comes before the first, which is then still being copied.
    data_file(tmp_path, 2, 25, 50, numbered)
    data_file(tmp_path, 1, 0, 25, numbered)
    whole = (tmp_path / "run_data_000001.h5").read_bytes()
    (tmp_path / "run_data_000001.h5").write_bytes(whole[: len(whole) // 2])
    records = gathered([source], lambda _: False, patience=0.3)
    assert {record.index for record in frames_of(records)} <= set(range(25, 50))
    (tmp_path / "run_data_000001.h5").write_bytes(whole)
    data_file(tmp_path, 3, 50, 60, numbered)
    master_file(tmp_path)
    records += gathered([source], finished(source))
    assert sorted(record.index for record in frames_of(records)) == list(range(60))
    assert_true_to(SCAN, records)
    (start,) = of_kind(records, Start)
    assert (start.expected, start.saturation, start.geometry.distance) == (60, 1000.0, None)
    assert start.geometry.wavelength == pytest.approx(1.5e-10) and start.geometry.detector_pixel == 75e-6
    np.testing.assert_array_equal(start.mask, SCAN.mask)


def test_a_master_says_the_same_live_and_offline(tmp_path):
    """Whatever is left out or said twice: a wavelength without units, a cutoff beside a saturation value, two masks."""
    data_file(tmp_path, 1, 0, 60)
    np.savetxt(tmp_path / "positions.csv", SCAN.positions * 1e6, delimiter=",", header="y_um,x_um", comments="")
    with h5py.File(tmp_path / "run_master.h5", "w") as file:
        file["entry/data/data_000001"] = h5py.ExternalLink("run_data_000001.h5", "/entry/data/data")
        file["entry/instrument/beam/incident_wavelength"] = 1.24
        file[f"{DETECTOR}/distance"] = 2.0
        file[f"{DETECTOR}/y_pixel_size"] = 75e-6
        file[f"{DETECTOR}/saturation_value"] = 900
        file[f"{DETECTOR}/beam_center_x"], file[f"{DETECTOR}/beam_center_y"] = 9.0, 8.0
        file[f"{DETECTOR}/detectorSpecific/countrate_correction_count_cutoff"] = 1000
        file[f"{DETECTOR}/threshold_1_channel/pixel_mask"] = (~SCAN.mask).astype(np.uint32)
    offline = read_scan(tmp_path / "run_master.h5", mapping={"positions_file": str(tmp_path / "positions.csv")})
    source = GrowingFrames(tmp_path / "run_master.h5", expected=60)
    (start,) = of_kind(gathered([source], finished(source)), Start)
    assert start.geometry == offline.geometry and start.metadata == offline.metadata
    assert start.saturation == offline.saturation == 1000
    np.testing.assert_array_equal(start.mask, offline.mask)
    assert offline.geometry.wavelength == pytest.approx(1.24e-10)


def test_pixels_that_are_not_square_are_told_live_too(tmp_path):
    data_file(tmp_path, 1, 0, 60)
    master_file(tmp_path)
    with h5py.File(tmp_path / "run_master.h5", "a") as file:
        file[f"{DETECTOR}/y_pixel_size"] = 1e-4
    source = GrowingFrames(tmp_path / "run_master.h5", idle=0.1)
    records = gathered([source], finished(source))
    assert "not square" in of_kind(records, Start)[0].metadata[NOT_BELIEVED] and len(frames_of(records)) == 60


def test_several_thresholds_in_a_file(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = np.stack((SCAN.frames[:], SCAN.frames[:] + 1), axis=1)
    for channel in (0, 1):
        source = GrowingFrames(tmp_path / "scan.h5", dataset="data", channel=channel, idle=0.1)
        frames = frames_of(gathered([source], finished(source)))
        np.testing.assert_array_equal([record.frame for record in frames], SCAN.frames[:] + channel)


@pytest.mark.parametrize("content", [None, b"not HDF5", "no dataset", "wrong rank", "no numbers"])
def test_a_file_that_never_becomes_one_is_told(tmp_path, content):
    path = tmp_path / "scan.h5"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        with h5py.File(path, "w") as file:
            name = "other" if content == "no dataset" else "entry/data/data"
            file[name] = np.array([b"a"]) if content == "no numbers" else np.zeros((4, 4))
    sources = [GrowingFrames(path, idle=0.2), GrowingPositions(path, ("entry/data/data",), unit="m", idle=0.2)]
    for source in sources:
        records = gathered([source], finished(source))
        assert str(path) in corrupt(records)[0].reason
        assert "nothing new" in of_kind(records, End)[0].reason
        assert not frames_of(records)


def test_what_has_grown_but_is_not_written_yet_is_waited_for(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        frames = file.create_dataset("entry/data/data", (4, 16, 24), "u2", chunks=(1, 16, 24))
        frames[0], frames[2] = SCAN.frames[0], SCAN.frames[2]
    source = GrowingFrames(tmp_path / "scan.h5", idle=0.1)
    records = gathered([source], lambda _: False, patience=0.3)
    assert [record.index for record in frames_of(records)] == [0]
    with h5py.File(tmp_path / "scan.h5", "r+") as file:
        file["entry/data/data"][1] = SCAN.frames[1]
    records += gathered([source], lambda records: len(frames_of(records)) == 2, patience=1.0)
    assert_true_to(SCAN, records)
    assert [record.index for record in frames_of(records)] == [0, 1, 2]
    # After a while a dark frame is a dark frame.
    records = gathered([source], finished(source))
    assert [(record.index, record.frame.sum()) for record in frames_of(records)] == [(3, 0)]


def test_a_damaged_frame_costs_itself_only(tmp_path):
    data_file(tmp_path, 1, 0, 40)
    with h5py.File(tmp_path / "run_data_000001.h5", "r+") as file:
        chunk = bytearray(file["entry/data/data"].id.read_direct_chunk((17, 0, 0))[1])
        chunk[13] ^= 0x40  # of the packed size of its first block: the filter would read far beyond
        file["entry/data/data"].id.write_direct_chunk((17, 0, 0), bytes(chunk))
    source = GrowingFrames(tmp_path / "run_data_000001.h5", idle=0.1)
    records = gathered([source], finished(source))
    assert [record.index for record in frames_of(records)] == [*range(17), *range(18, 40)]
    assert [record.index for record in corrupt(records)] == [17]
    assert "a damaged chunk" in corrupt(records)[0].reason


def test_damaged_positions_are_told(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        positions = file.create_dataset("p", data=SCAN.positions, chunks=(60, 2), **hdf5plugin.Bitshuffle(cname="lz4"))
        chunk = bytearray(positions.id.read_direct_chunk((0, 0))[1])
        chunk[13] ^= 0x40
        positions.id.write_direct_chunk((0, 0), bytes(chunk))
    source = GrowingPositions(tmp_path / "scan.h5", ("p",), unit="m", idle=0.1)
    records = gathered([source], finished(source))
    assert "a damaged chunk" in corrupt(records)[0].reason and not of_kind(records, PositionRecord)


def test_positions_not_measured_yet_are_waited_for(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["y"], file["x"] = SCAN.positions[:5].T
        file["y"][3] = np.nan
    source = GrowingPositions(tmp_path / "scan.h5", ("y", "x"), unit="m", idle=30.0)
    records = gathered([source], lambda records: len(records) == 4)
    with h5py.File(tmp_path / "scan.h5", "r+") as file:
        file["y"][3] = SCAN.positions[3, 0]
    records += gathered([source], lambda records: len(records) == 1)
    assert [record.index for record in records] == [0, 1, 2, 4, 3]
    assert_true_to(SCAN, records)


def test_a_position_that_never_becomes_a_number_holds_no_other_up(tmp_path, monkeypatch):
    monkeypatch.setattr(growing, "MOST_POSITIONS", 16)
    lost = np.array(SCAN.positions)
    lost[[17, 18]] = np.nan
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["p"] = lost
    source = GrowingPositions(tmp_path / "scan.h5", ("p",), unit="m", idle=1.0)
    records = gathered([source], lambda records: len(records) >= 58)
    with h5py.File(tmp_path / "scan.h5", "r+") as file:
        file["p"][17] = SCAN.positions[17]
    records += gathered([source], finished(source))
    positions = of_kind(records, PositionRecord)
    assert sorted(record.index for record in positions) == [index for index in range(60) if index != 18]
    assert_true_to(SCAN, positions)
    (said,) = of_kind(records, NoPosition)
    assert "1 position never became numbers (first: of frame 18)" in said.reason


def test_a_raster_that_is_being_written_is_not_taken_for_thresholds(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["entry/data/data"] = SCAN.frames[:].reshape(5, 12, *SCAN.frame_shape)
    source = GrowingFrames(tmp_path / "scan.h5", idle=1.0)
    records = gathered([source], finished(source))
    assert not frames_of(records) and "a raster cannot be watched" in str(records)
    chosen = GrowingFrames(tmp_path / "scan.h5", channel=3, idle=1.0)
    found = frames_of(gathered([chosen], finished(chosen)))
    np.testing.assert_array_equal([record.frame for record in found], SCAN.frames[3::12])


def test_a_master_that_cannot_be_understood_costs_no_frame(tmp_path):
    data_file(tmp_path, 1, 0, 60)
    master_file(tmp_path)
    with h5py.File(tmp_path / "run_master.h5", "a") as file:
        file[f"{DETECTOR}/detector_distance"][()] = 2.0
        file[f"{DETECTOR}/detector_distance"].attrs["units"] = "furlong"
    source = GrowingFrames(tmp_path / "run_master.h5", idle=2.0)
    records = gathered([source], finished(source))
    assert len(frames_of(records)) == 60
    (start,) = of_kind(records, Start)
    assert "unknown unit; found furlong" in start.metadata[NOT_BELIEVED]


def test_stored_positions_of_a_scan_and_of_a_table(tmp_path):
    write_scan(tmp_path / "scan.cxi", SCAN)
    table = tmp_path / "positions.csv"
    np.savetxt(table, SCAN.positions * 1e6, delimiter=",", header="y_um,x_um", comments="")
    for text in (str(tmp_path / "scan.cxi"), str(table), f"{table}?columns=1,2&unit=um"):
        source = open_sources("stream2://localhost", text)[1]
        records = gathered([source], finished(source))
        assert_true_to(SCAN, records)
        assert len(of_kind(records, PositionRecord)) == 60


def mapped(folder):
    """A file that only a mapping explains, the mapping, and a table of its positions."""
    with h5py.File(folder / "home.h5", "w") as file:
        file["dp"], file["yx"] = SCAN.frames[:], SCAN.positions
    table = folder / "positions.csv"
    np.savetxt(table, SCAN.positions * 1e6, delimiter=",", header="y_um,x_um", comments="")
    return folder / "home.h5", {"frames": "/dp"}, {"positions": "/yx", "position_unit": "m"}, table


def test_a_table_with_lines_missing_is_refused_where_frames_are_yet_to_come(tmp_path):
    (tmp_path / "stage.csv").write_text("frame,y_um,x_um\n0,1,2\n1,3,4\n5,5,6\n")
    with pytest.raises(InputError, match="frame: lines are missing; found 1 and then 5"):
        open_sources("stream2://127.0.0.1:1", str(tmp_path / "stage.csv"))


def test_a_replay_of_a_file_that_a_mapping_explains(tmp_path):
    path, frames, positions, table = mapped(tmp_path)
    other = tmp_path / "scan.cxi"
    write_scan(other, SCAN)
    for place, said in (
        (None, frames | positions),
        (str(table), frames),
        (f"{table}?columns=1,2&unit=um", frames),
        (str(other), frames | positions),
        (None, frames | {"positions_file": str(table)}),
    ):
        sources = open_sources(f"{path}?rate=1e6", place, mapping=said)
        records = gathered(sources, finished(*sources))
        assert_true_to(SCAN, records)
        assert len(frames_of(records)) == len(of_kind(records, PositionRecord)) == 60


def test_positions_of_a_file_that_a_mapping_explains(tmp_path):
    path, frames, positions, table = mapped(tmp_path)
    for said in (frames | positions, frames | {"positions_file": str(table)}):
        source = open_sources("stream2://localhost", str(path), mapping=said)[1]
        assert_true_to(SCAN, gathered([source], finished(source)))


def test_a_table_of_a_fly_scan_and_what_says_nothing_of_it(tmp_path):
    recorded = np.repeat(SCAN.positions, 3, axis=0) + np.tile([[-1e-9, 0], [0, 2e-9], [1e-9, -2e-9]], (60, 1))
    table = tmp_path / "fly.csv"
    np.savetxt(table, recorded * 1e6, delimiter=",", header="y_um,x_um", comments="", fmt="%.12g")
    source = open_sources("stream2://localhost", str(table), mapping={"positions_per_frame": "3"})[1]
    records = gathered([source], finished(source))
    positions = np.array([record.position for record in of_kind(records, PositionRecord)])
    np.testing.assert_allclose(positions, SCAN.positions, atol=1e-15)
    with pytest.raises(InputError, match="--map: says nothing of positions; found distance_m, expected positions_file"):
        open_sources("stream2://localhost", str(table), mapping={"distance_m": "2"})


def test_a_mapping_without_a_file_is_refused():
    with pytest.raises(InputError, match="--map: explains a scan file, and there is none here; found frames"):
        open_sources("pva://A", "attributes:Y,X?unit=px", mapping={"frames": "/dp"})


@pytest.mark.parametrize(
    ("frames", "positions"),
    [
        ("http://host", "x.cxi"),
        ("stream2://host", None),
        ("stream2://host", "attributes:Y,X?unit=m"),
        ("pva://A", "attributes:Y,X"),
        ("pva://A", "attributes:Y,X?unit=parsec"),
        ("pva://A", "attributes:Y?unit=m"),
        ("pva://A?speed=3", "attributes:Y,X?unit=m"),
        ("pva://A?queue=none", "attributes:Y,X?unit=m"),
        ("pva://A?queue=0", "attributes:Y,X?unit=m"),
        ("pva://A", "pva://Y?unit=m"),
        ("pva://A", "pva://Y,X"),
        ("pva://A", "pva://Y,X?unit=m&retained=perhaps"),
        ("pva://A", "pva-table://T?unit=m&columns=y"),
        ("pva://A", "stream2://host"),
        ("pva-table://A", "x.cxi"),
        ("watch:a.h5", "watch:a.h5?unit=m"),
        ("nothing.cxi", None),
        ("SCAN?rate=-5", None),
        ("SCAN?rate=nan", None),
        ("watch:a.h5?idle=-1", "watch:a.h5?unit=m&datasets=p"),
        ("stream2://host", "nothing.csv"),
    ],
)
def test_what_is_not_understood_is_told(frames, positions, tmp_path):
    write_scan(tmp_path / "scan.cxi", SCAN)
    with pytest.raises(InputError):
        open_sources(frames.replace("SCAN", str(tmp_path / "scan.cxi")), positions)


def test_what_is_missing_or_misspelt_is_answered_with_what_there_is():
    with pytest.raises(InputError, match=r"unknown kind.*replay:, pva:, pva-table:, stream2:, tcp:, watch:"):
        open_sources("foo://127.0.0.1:31001", "scan.cxi")
    with pytest.raises(InputError, match=r"--positions: must be given.*scan file or a table, pva://Y,X"):
        open_sources("stream2:127.0.0.1:31001")


def test_a_file_that_never_appears_is_named(trained, tmp_path):
    sources = open_sources(f"watch:{tmp_path / 'no.h5'}", f"watch:{tmp_path / 'no.h5'}?datasets=p&unit=m", idle=0.1)
    engine = open_engine(trained.model, device="cpu")
    session = Session(*sources, trained.model, engine, LiveSettings(), lambda *_: None)
    with pytest.raises(PtychoWError, match=r"no scan was received: .*no\.h5: never appeared"):
        session.run()


def test_sources_do_not_wait_longer_than_they_are_told(tmp_path):
    for source in open_sources(f"watch:{tmp_path / 'a.h5'}", f"watch:{tmp_path / 'a.h5'}?datasets=p&unit=m"):
        began = time.monotonic()
        assert source.poll(0.05) == []
        assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("zmq", ["stream2://localhost", "nothing.csv"]),
        ("cbor2", ["stream2://localhost", "nothing.csv"]),
        ("imagecodecs", ["stream2://localhost", "nothing.csv"]),
        ("p4p", ["pva://A", "attributes:Y,X?unit=m"]),
        ("p4p", ["watch:a.h5", "pva-table://T?unit=m"]),
    ],
)
def test_a_missing_library_is_named_with_the_pip_line(module, arguments):
    script = f"import sys; sys.modules[{module!r}] = None; from ptychow.live.sources import open_sources\n"
    script += f"try: open_sources(*{arguments})\nexcept Exception as error: print(type(error).__name__, error)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("MissingExtraError") and "pip install '.[live]'" in shown


@pytest.mark.parametrize("numbered", [True, False])
def test_dark_and_damaged_frames_do_not_end_a_file(tmp_path, numbered, monkeypatch):
    monkeypatch.setattr(growing, "MOST_AT_ONCE", 8)
    dark = SCAN.frames.copy()
    dark[10:12] = 0
    data_file(tmp_path, 1, 0, 40, numbered, dark)
    data_file(tmp_path, 2, 40, 60, numbered)
    master_file(tmp_path)
    with h5py.File(tmp_path / "run_data_000001.h5") as file:
        chunk = file["entry/data/data"].id.get_chunk_info(20)
    with (tmp_path / "run_data_000001.h5").open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(bytes(chunk.size))
    source = GrowingFrames(tmp_path / "run_master.h5", idle=4.0)
    records = gathered([source], finished(source))
    came = sorted(record.index for record in frames_of(records))
    assert came == [index for index in range(60) if index != 20]
    assert [record.index for record in corrupt(records)] == [20]
