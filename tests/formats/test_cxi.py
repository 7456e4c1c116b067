"""CXI: lossless round trips, files laid out by others, and damage."""

from dataclasses import fields, replace

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptychow.errors import InputError, PtychoWError
from ptychow.formats import read_scan, write_scan
from ptychow.formats.cxi import read_object, write_reconstruction
from ptychow.scan import Geometry, ObjectImage, Scan

RNG = np.random.default_rng(7)


def complex_array(*shape: int) -> np.ndarray:
    return (RNG.normal(size=shape) + 1j * RNG.normal(size=shape)).astype(np.complex64)


def full_scan() -> Scan:
    """Everything a scan can hold."""
    return Scan(
        frames=RNG.integers(0, 5000, (6, 8, 8)).astype(np.uint32),
        positions=RNG.normal(size=(6, 2)) * 1e-6,
        position_unit="m",
        geometry=Geometry(1.377e-10, 1.93, 75e-6, 1.377e-10 * 1.93 / (8 * 75e-6)),
        mask=RNG.random((8, 8)) > 0.2,
        saturation=4095.0,
        probe=complex_array(3, 8, 8),
        object=ObjectImage(complex_array(30, 20), (-3.25, 1 / 3), "LSQML, 40 epochs"),
        label_patches=complex_array(6, 4, 4),
        nominal_positions=RNG.normal(size=(6, 2)) * 1e-6,
        raster=(2, 3),
        name="full",
        metadata={"sample": "Wolfram, geätzt", "a/b": "c\nd", "": "{}"},
    )


def assert_same(found: Scan, expected: Scan) -> None:
    """Equal in every field but the name, which is the file's."""
    for part in fields(Scan):
        one, other = getattr(found, part.name), getattr(expected, part.name)
        if part.name == "name":
            continue
        if part.name == "object" and other is not None:
            assert np.array_equal(one.image, other.image) and one.image.dtype == np.complex64
            assert (one.origin, one.source) == (other.origin, other.source)
        elif hasattr(other, "shape"):
            assert one.shape == other.shape and one.dtype == other.dtype, part.name
            assert np.array_equal(one[:], other[:]), part.name
        else:
            assert one == other, part.name


def test_everything_comes_back(tmp_path):
    path = tmp_path / "scan.cxi"
    scan = full_scan()
    write_scan(path, scan)
    found = read_scan(path)
    assert_same(found, scan)
    assert found.name == "scan.cxi"
    assert found.fingerprint() == scan.fingerprint()
    again = tmp_path / "again.cxi"
    write_scan(again, found)
    assert_same(read_scan(again), scan)


OPTIONAL = ("mask", "saturation", "probe", "object", "label_patches", "nominal_positions", "raster")


@pytest.mark.parametrize("absent", OPTIONAL)
def test_what_is_unknown_stays_unknown(tmp_path, absent):
    scan = replace(full_scan(), **{absent: None})
    write_scan(tmp_path / "a.cxi", scan)
    assert_same(read_scan(tmp_path / "a.cxi"), scan)


POSITIVE = st.one_of(st.none(), st.floats(1e-12, 1e-4, allow_nan=False))
DTYPES = st.sampled_from([np.uint8, np.uint16, np.uint32, np.uint64, np.int16, np.int32, np.float32, np.float64])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=DTYPES,
    big_endian=st.booleans(),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(10, 12)),  # never square: no derived pixel size
    lengths=st.tuples(POSITIVE, POSITIVE, POSITIVE, POSITIVE),
    unit=st.sampled_from(["m", "px"]),
    scale=st.floats(1e-9, 1e6),
)
def test_units_geometry_and_dtypes_come_back_to_the_last_bit(tmp_path, dtype, big_endian, shape, lengths, unit, scale):
    kind = np.dtype(dtype).newbyteorder(">" if big_endian else "<")
    scan = Scan(
        frames=RNG.integers(0, 100, shape).astype(kind),
        positions=RNG.normal(size=(shape[0], 2)) * scale,
        position_unit=unit,
        geometry=Geometry(*lengths),
    )
    write_scan(tmp_path / "a.cxi", scan)
    assert_same(read_scan(tmp_path / "a.cxi"), scan)


def test_labelling_in_place_changes_nothing_else(tmp_path):
    """Read, add an object, write over the same file: the lazily read frames must survive."""
    path = tmp_path / "scan.cxi"
    scan = replace(full_scan(), object=None)
    write_scan(path, scan)
    image = ObjectImage(complex_array(5, 5), (0.5, 2.0), "labels")
    write_scan(path, replace(read_scan(path), object=image))
    assert_same(read_scan(path), replace(scan, object=image))


def test_progress_counts_every_frame(tmp_path):
    counted = []
    write_scan(tmp_path / "a.cxi", full_scan(), progress=counted.append)
    assert sum(counted) == 6


def test_frames_are_streamed(tmp_path):
    """The writer never asks for more than 16 MiB at a time."""

    class Watched:
        shape, dtype, largest = (100, 512, 512), np.dtype(np.uint16), 0

        def __getitem__(self, index):
            part = np.zeros((len(range(100)[index]), 512, 512), np.uint16)
            self.largest = max(self.largest, part.nbytes)
            return part

    frames = Watched()
    write_scan(tmp_path / "a.cxi", Scan(frames=frames, positions=np.zeros((100, 2))))
    assert 0 < frames.largest <= 2**24


def test_layout_is_what_other_programs_expect(tmp_path):
    """Read with h5py alone."""
    path = tmp_path / "scan.cxi"
    scan = full_scan()
    write_scan(path, scan)
    with h5py.File(path) as file:
        entry = file["entry_1"]
        assert file["cxi_version"][()] == 160
        assert np.array_equal(entry["data_1/data"][:], scan.frames)
        assert entry["data_1/data"].chunks == (1, 8, 8)
        translation = entry["data_1/translation"]
        assert translation.attrs["units"] == "m"
        assert np.array_equal(translation[:, 0], scan.positions[:, 1])  # x: columns
        assert np.array_equal(translation[:, 1], scan.positions[:, 0])  # y: rows
        assert not translation[:, 2].any()
        assert entry["instrument_1/source_1/energy"][()] == pytest.approx(9.004e3 * 1.602176634e-19, rel=1e-3)
        assert entry["instrument_1/detector_1/distance"][()] == 1.93
        assert entry["instrument_1/detector_1/y_pixel_size"][()] == 75e-6
        assert np.array_equal(entry["instrument_1/detector_1/mask"][:] == 0, scan.mask)
        assert np.array_equal(entry["image_1/data"][:], scan.object.image)


def foreign(path, *, translation=None, **detector):
    """A CXI file as other programs write it: no attributes, nothing of PtychoW's own."""
    detector.setdefault("data", RNG.integers(0, 99, (4, 6, 6)))
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 140
        file["entry_1/instrument_1/source_1/energy"] = 1.4422e-15  # 9 keV
        for name, value in detector.items():
            file[f"entry_1/instrument_1/detector_1/{name}"] = value
        positions = np.arange(12.0).reshape(4, 3) * 1e-6 if translation is None else translation
        file["entry_1/sample_1/geometry_1/translation"] = positions
    return path


def test_a_foreign_file(tmp_path):
    mask = np.zeros((6, 6), np.uint32)
    mask[0, 0], mask[1, 1], mask[2, 2] = (
        0x8,
        0x1000,
        0x1001,
    )  # dead; only a signal mark; invalid with signal mark
    path = foreign(tmp_path / "a.cxi", distance=2.0, x_pixel_size=1e-4, y_pixel_size=1e-4, mask=mask)
    scan = read_scan(path)
    assert scan.position_unit == "m"
    assert np.allclose(scan.positions * 1e6, [[1, 0], [4, 3], [7, 6], [10, 9]])
    assert sorted(map(tuple, np.argwhere(~scan.mask))) == [(0, 0), (2, 2)]
    assert scan.geometry.wavelength == pytest.approx(1.3773e-10, rel=1e-4)
    assert scan.geometry.pixel_size == pytest.approx(1.3773e-10 * 2 / (6 * 1e-4), rel=1e-4)


def test_positions_stored_across(tmp_path):
    across = np.arange(12.0).reshape(4, 3).T
    assert np.allclose(read_scan(foreign(tmp_path / "a.cxi", translation=across)).positions[1], [4, 3])


def test_a_mask_for_every_frame(tmp_path):
    masks = np.zeros((4, 6, 6), np.uint32)
    masks[2, 3, 4] = 2
    assert list(map(tuple, np.argwhere(~read_scan(foreign(tmp_path / "a.cxi", mask=masks)).mask))) == [(3, 4)]


def test_several_masks_and_what_their_bits_mean(tmp_path):
    own, shared, every = np.zeros((6, 6), np.uint32), np.zeros((6, 6), np.uint16), np.zeros((4, 6, 6), np.int32)
    own[0, 0], own[0, 1], own[0, 2] = 0x4, 0x20, 0x100  # hot; in a peak; beyond the resolution wanted
    shared[1, 0], shared[1, 1] = 0x10, 0x800  # shadowed; corrected
    every[3, 2, 0], every[1, 2, 1] = 0x2 | 0x1000, 0x1000  # saturated in one frame; only a signal
    path = foreign(tmp_path / "a.cxi", mask=own, mask_shared=shared)
    with h5py.File(path, "a") as file:
        file["entry_1/data_1/mask"] = every
    scan = read_scan(path)
    assert sorted(map(tuple, np.argwhere(~scan.mask))) == [(0, 0), (1, 0), (2, 0)]
    for words in ("1 saturated", "1 hot", "1 shadowed", "1 in a peak", "1 corrected", "2 with signal"):
        assert words in scan.metadata["mask"]


def test_masks_of_other_types(tmp_path):
    for values in (np.eye(6, dtype=bool), np.eye(6), np.where(np.eye(6) > 0, np.nan, 0)):
        assert np.array_equal(read_scan(foreign(tmp_path / "a.cxi", mask=values)).mask, ~np.eye(6, dtype=bool))


@pytest.mark.parametrize("place", ["sample_1/translation", "instrument_1/detector_1/translation", "data_1/translation"])
def test_translation_wherever_it_is(tmp_path, place):
    path = foreign(tmp_path / "a.cxi")
    with h5py.File(path, "a") as file:
        file.move("entry_1/sample_1/geometry_1/translation", f"entry_1/{place}")
        file[f"entry_1/{place}"].attrs["units"] = "um"
    assert np.allclose(read_scan(path).positions * 1e12, [[1, 0], [4, 3], [7, 6], [10, 9]])


def test_the_storage_ring_is_no_photon(tmp_path):
    path = foreign(tmp_path / "a.cxi")
    with h5py.File(path, "a") as file:
        file["entry_1/instrument_1/source_1/energy"][()] = 3e9 * 1.602e-19
    assert read_scan(path).geometry.wavelength is None


def test_a_picture_that_is_no_object_of_the_scan_is_left_out(tmp_path):
    """As Ptychodus writes: its probe is image_1, with a variation of it; no origin."""
    path = foreign(tmp_path / "a.cxi")
    with h5py.File(path, "a") as file:
        file["entry_1/image_1/data"] = complex_array(2, 3, 6, 6)
        file["entry_1/instrument_1/source_1/illumination"] = h5py.SoftLink("/entry_1/image_1/data")
        probe = file["entry_1/image_1/data"][0]
    scan = read_scan(path)
    assert scan.object is None and "left out" in scan.metadata["image_1"]
    assert np.array_equal(scan.probe, probe)


@pytest.mark.parametrize("name", ["data_1/process_1/configuration/near_field", "near_field"])
def test_a_near_field_scan_is_refused_with_the_reason(tmp_path, name):
    path = foreign(tmp_path / "a.cxi")
    with h5py.File(path, "a") as file:
        file[f"entry_1/{name}"] = False
    assert len(read_scan(path)) == 4
    with h5py.File(path, "a") as file:
        file[f"entry_1/{name}"][()] = True
    with pytest.raises(InputError, match=f"{name}: a near-field scan; expected far-field diffraction patterns"):
        read_scan(path)


@pytest.mark.parametrize("name", ["Blosc", "LZ4", "Zstd", "Bitshuffle"])
def test_frames_compressed_with_plugins(tmp_path, name):
    path, frames = foreign(tmp_path / "a.cxi"), RNG.integers(0, 9, (4, 6, 6))
    with h5py.File(path, "a") as file:
        del file["entry_1/instrument_1/detector_1/data"]
        packed = getattr(hdf5plugin, name)()
        file.create_dataset("entry_1/instrument_1/detector_1/data", data=frames, chunks=(2, 6, 6), **packed)
    assert np.array_equal(read_scan(path).frames[:], frames)


def test_raster_of_frames(tmp_path):
    scan = read_scan(foreign(tmp_path / "a.cxi", data=RNG.integers(0, 9, (2, 2, 6, 6))))
    assert scan.raster == (2, 2) and scan.frames.shape == (4, 6, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"translation": np.zeros((3, 3))}, "positions: does not fit; found 3 positions for 4 frames"),
        ({"translation": np.full((4, 3), np.nan)}, r"positions: does not fit; found 4 not finite"),
        ({"translation": np.zeros((4, 2))}, r"translation: not positions; found shape \(4, 2\)"),
        ({"data": np.zeros((4, 6))}, "not a stack of images"),
        ({"data": np.zeros((4, 6, 6), complex)}, "frames: does not fit; found dtype complex128"),
        ({"mask": np.zeros((5, 6))}, r"mask: does not fit the frames; found shape \(5, 6\)"),
        ({"mask": np.ones((6, 6))}, "every pixel bad"),
        ({"distance": -1.0}, "distance: not a length"),
        ({"distance": [1.0, 2.0]}, "distance: of the wrong length"),
        ({"distance": b"two metres"}, "distance: not numbers"),
        ({"x_pixel_size": 1e-4, "y_pixel_size": 2e-4}, "detector pixels are not square"),
    ],
)
def test_faults_are_named(tmp_path, change, message):
    with pytest.raises(InputError, match=message) as caught:
        read_scan(foreign(tmp_path / "bad.cxi", **change))
    assert "bad.cxi" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("lost", ["instrument_1/detector_1/data", "sample_1/geometry_1/translation"])
def test_missing_dataset(tmp_path, lost):
    path = foreign(tmp_path / "bad.cxi")
    with h5py.File(path, "a") as file:
        del file[f"entry_1/{lost}"]
    with pytest.raises(InputError, match=r"bad\.cxi: a CXI file without (frames|positions); found /entry_1"):
        read_scan(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("raster", [1, 2, 3], "raster: of the wrong length"),
        ("raster", [2, 5], "raster: does not fit"),
        ("metadata", "[1]", "metadata: not a JSON text"),
        ("metadata", "{", "metadata: not a JSON text"),
        ("metadata", 3, "metadata: not a JSON text"),
        ("pixel_size", 0.0, "pixel_size: not a length"),
        ("label_patches", np.zeros((3, 2, 2)), "label_patches: does not fit"),
    ],
)
def test_faults_in_our_own_group(tmp_path, name, value, message):
    path = tmp_path / "bad.cxi"
    write_scan(path, replace(full_scan(), geometry=Geometry()))
    with h5py.File(path, "a") as file:
        if f"entry_1/ptychow/{name}" in file:
            del file[f"entry_1/ptychow/{name}"]
        file[f"entry_1/ptychow/{name}"] = value
    with pytest.raises(InputError, match=message):
        read_scan(path)


def test_unknown_position_unit(tmp_path):
    path = foreign(tmp_path / "bad.cxi")
    with h5py.File(path, "a") as file:
        file["entry_1/sample_1/geometry_1/translation"].attrs["units"] = "furlong"
    with pytest.raises(InputError, match="units: unknown unit; found furlong, expected m, mm"):
        read_scan(path)


def test_pixel_size_may_be_added_but_not_contradicted(tmp_path):
    path = foreign(tmp_path / "a.cxi")
    assert read_scan(path, pixel_size=8e-9).geometry.pixel_size == 8e-9
    full = foreign(tmp_path / "full.cxi", distance=2.0, x_pixel_size=1e-4)
    with pytest.raises(InputError, match=r"pixel_size: contradicts the file; found 8 nm, expected 459\.1 nm"):
        read_scan(full, pixel_size=8e-9)


@pytest.mark.parametrize("keep", [0.05, 0.5, 0.99])
def test_truncated(tmp_path, keep):
    path = tmp_path / "cut.cxi"
    write_scan(path, full_scan())
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(InputError, match=r"cut\.cxi: cannot be read .* expected a complete HDF5 file"):
        read_scan(path)


def test_reconstruction(tmp_path):
    path = tmp_path / "picture.cxi"
    image = ObjectImage(complex_array(20, 30), (1.5, -2.0), "network w3")
    coverage = RNG.random((20, 30)).astype(np.float32)
    write_reconstruction(
        path,
        image,
        geometry=Geometry(pixel_size=1e-8),
        coverage=coverage,
        variance=coverage**2,
        probe=complex_array(1, 8, 8),
        summary={"frames": np.int64(5), "rate": 3.5},
    )
    found = read_object(path)
    assert np.array_equal(found.image, image.image)
    assert (found.origin, found.source) == (image.origin, image.source)
    with h5py.File(path) as file:
        assert np.array_equal(file["entry_1/ptychow/coverage"][:], coverage)
        assert file["entry_1/ptychow/summary"].asstr()[()] == '{"frames": 5, "rate": 3.5}'
        assert file["entry_1/ptychow/pixel_size"][()] == 1e-8
    with pytest.raises(InputError, match="holds a reconstruction, not a scan"):
        read_scan(path)


def test_reconstruction_maps_must_fit(tmp_path):
    image = ObjectImage(complex_array(20, 30), (0, 0), "x")
    with pytest.raises(InputError, match="coverage: not of the image's shape"):
        write_reconstruction(tmp_path / "a.cxi", image, geometry=Geometry(), coverage=np.ones((3, 3)), summary={})
    assert not list(tmp_path.iterdir())


def test_object_of_a_scan_and_of_none(tmp_path):
    write_scan(tmp_path / "a.cxi", full_scan())
    assert read_object(tmp_path / "a.cxi").source == "LSQML, 40 epochs"
    with pytest.raises(InputError, match="image_1/data: no such dataset"):
        read_object(foreign(tmp_path / "b.cxi"))
    with h5py.File(tmp_path / "b.cxi", "a") as file:
        file["entry_1/image_1/data"] = complex_array(3, 3)
    with pytest.raises(InputError, match="where the object lies in the scan is not said"):
        read_object(tmp_path / "b.cxi")


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def no_space(*_args, **_keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(h5py.Dataset, "__setitem__", no_space)
    with pytest.raises(PtychoWError, match=r"a\.cxi: cannot be written .*No space left") as caught:
        write_scan(tmp_path / "a.cxi", full_scan())
    assert caught.value.exit_code == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(PtychoWError, match="cannot be written"):
        write_scan(tmp_path / "file" / "a.cxi", full_scan())
