"""Dectris masters, TIFF stacks, ptyd and PtychoShelves: what each says besides frames, and what may be wrong."""

import h5py
import layouts
import numpy as np
import pytest
import tifffile
from layouts import COUNT, FRAMES, LAYOUTS

from ptychow.errors import InputError
from ptychow.formats import read_scan
from ptychow.formats.tiff import TiffFrames
from ptychow.inspection import inspect_scan
from ptychow.scan import NOT_BELIEVED, Geometry

DETECTOR = "entry/instrument/detector"


def opened(kind, folder, act, **said):
    """The scan of a layout after something was done to its HDF5 file."""
    path, mapping = LAYOUTS[kind][0](folder)
    with h5py.File(path, "a") as file:
        act(file)
    return read_scan(path, mapping=mapping | said)


def replaced(name, value, **attributes):
    def act(file):
        if name in file:
            del file[name]
        layouts.write(file, {name: (value, attributes)})

    return act


@pytest.mark.parametrize(("kind", "saturation"), [("Dectris 1", 245916), ("Dectris 2", 245916 + 1)])
def test_dectris_says_more(kind, saturation, tmp_path):
    path, mapping = LAYOUTS[kind][0](tmp_path)
    scan = read_scan(path, mapping=mapping)
    assert scan.saturation == saturation  # NeXus's saturation_value is the largest that is valid
    assert scan.metadata["beam_center_px"] == "8,9"
    assert scan.raster is None


@pytest.mark.parametrize(("channel", "bad"), [("0", 1), ("1", 2)])
@pytest.mark.parametrize("own", ["stacked", "apart"])
def test_each_threshold_has_its_mask(channel, bad, own, tmp_path):
    masks = np.zeros((2, *FRAMES.shape[1:]), np.uint32)
    masks[0, 1, 1] = masks[1, 2, 2] = 1
    path, mapping = layouts.dectris_2(tmp_path)
    with h5py.File(path, "a") as file:
        del file[f"{DETECTOR}/threshold_1_channel"]
        if own == "stacked":
            file[f"{DETECTOR}/pixel_mask"] = masks
        else:
            for number, mask in enumerate(masks, 1):
                file[f"{DETECTOR}/threshold_{number}_channel/pixel_mask"] = mask
    good = read_scan(path, mapping=mapping | {"channel": channel}).mask
    assert np.argwhere(~good).tolist() == [[bad, bad]]


def test_a_threshold_must_be_chosen(tmp_path):
    path, mapping = layouts.dectris_2(tmp_path)
    assert np.array_equal(read_scan(path, mapping=mapping | {"channel": "0"}).frames[:], FRAMES + 1)
    for wrong in ({}, {"channel": "2"}, {"channel": "two"}):
        said = {key: value for key, value in mapping.items() if key != "channel"} | wrong
        with pytest.raises(InputError, match=r"channel: holds frames of 2 thresholds; .*expected one of 0 to 1"):
            read_scan(path, mapping=said)


FAULTS = {
    "pixels": ("Dectris 1", replaced(f"{DETECTOR}/x_pixel_size", 1e-4, units="m"), "detector pixels are not square"),
    "unit": (
        "Dectris 1",
        replaced(f"{DETECTOR}/detector_distance", 1.0, units="furlong"),
        "unknown unit; found",
    ),
    "mask": ("Dectris 1", replaced(f"{DETECTOR}/detectorSpecific/pixel_mask", np.zeros((3, 3))), "mask: does not fit"),
    "frames": ("Dectris 1", replaced("entry/data/data_000001", FRAMES[:, 1:]), "parts that do not fit together"),
    "rank": ("Dectris 1", replaced("entry/data/data_000001", FRAMES[0]), "not a stack of images"),
    "psize": ("ptyd", replaced("meta/psize", [1e-4, 2e-4]), "detector pixels are not square"),
    "energies": ("ptyd", replaced("meta/energy", [1.0, 2.0, 3.0]), "meta/energy: of the wrong length"),
    "weights": ("ptyd", replaced("chunks/0/weights", np.ones((7, 3, 3))), "weights: does not fit the frames"),
    "positions": ("ptyd", replaced("chunks/0/positions", np.ones((7, 3))), "positions: not positions; found shape"),
    "chunk": ("ptyd", replaced("chunks/0/positions", np.ones((6, 2))), "found 11 positions for 12 frames"),
    "no chunks": ("ptyd", lambda file: [file.pop(f"chunks/{n}") for n in "01"], "a .ptyd file without frames"),
    "corners": ("PtychoShelves prepared", replaced("measurement/n0/positions", np.ones(12)), "not positions"),
    "bad pixels": (
        "PtychoShelves prepared",
        replaced("detector/n0/bad_pixels", np.array([[99, 1]])),
        "bad_pixels: no pixels of these frames",
    ),
    "bad pixels counted from 1": (
        "PtychoShelves prepared",
        replaced("detector/n0/bad_pixels", np.array([[FRAMES.shape[1], 1]])),
        "bad_pixels: no pixels of these frames; expected counted from 0",
    ),
    "result": ("mat 7.3", replaced("outputs/probe_positions", np.ones((3, 12))), "probe_positions: not positions"),
    "dx": ("mat 7.3", replaced("p/dx_spec", np.ones(3)), "p.dx_spec: of the wrong length"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(fault, tmp_path):
    kind, act, message = FAULTS[fault]
    with pytest.raises(InputError, match=message) as caught:
        opened(kind, tmp_path, act)
    assert any(item.name in str(caught.value) for item in tmp_path.iterdir())


def test_ptyd_of_the_near_field(tmp_path):
    path, _ = layouts.ptyd(tmp_path, propagation="nearfield")
    with pytest.raises(InputError, match="meta/propagation: a near-field scan"):
        read_scan(path)


def test_ptyd_with_a_common_weight_and_unknown_geometry(tmp_path):
    def act(file):
        for name in ("energy", "distance", "psize"):
            del file[f"meta/{name}"]
        file["meta/energy"] = "None"
        for chunk in "01":
            del file[f"chunks/{chunk}/weights"]
            file[f"chunks/{chunk}/weights"] = np.zeros(0)
        file["info/weight2d"] = np.where(layouts.GOOD, 2.0, 0.0)

    path, _ = layouts.ptyd(tmp_path)
    with h5py.File(tmp_path / "scan.ptyd.part001", "a") as part, h5py.File(path, "a") as file:
        del file["chunks/1"]
        part.copy("/", file["chunks"], "1")
    with h5py.File(path, "a") as file:
        act(file)
    scan = read_scan(path)
    assert np.array_equal(scan.mask, layouts.GOOD) and np.array_equal(scan.frames[:], FRAMES)
    assert scan.geometry.wavelength is None and scan.metadata == {"label": "S00"}


def test_a_result_without_frames_takes_the_one_file_beside_it(tmp_path):
    path, _ = layouts.matlab_5(tmp_path)
    assert np.array_equal(read_scan(path).frames[:], FRAMES)
    (tmp_path / "other_dp.hdf5").write_bytes((tmp_path / "data_roi0_Ndp16_dp.hdf5").read_bytes())
    with pytest.raises(InputError, match=r"this reconstruction holds no frames; found 2 files NAME_dp\.hdf5"):
        read_scan(path)


def test_parameters_of_any_name(tmp_path):
    path, _ = layouts.fold_slice(tmp_path)
    (tmp_path / "data_roi0_Ndp16_para.hdf5").rename(tmp_path / "xy.h5")
    with pytest.raises(InputError, match="holds no positions"):
        read_scan(path)
    scan = read_scan(path, mapping={"parameters": str(tmp_path / "xy.h5")})
    np.testing.assert_allclose(scan.positions, layouts.POSITIONS)
    with pytest.raises(InputError, match="parameters: no such file"):
        read_scan(path, mapping={"parameters": str(tmp_path / "gone.h5")})


def test_geometry_of_a_tiff_stack(tmp_path):
    path, said = layouts.tiff_pages(tmp_path)
    more = {"energy_ev": "8800", "distance_m": "1.25", "detector_pixel_m": "55e-6", "saturation": "4000"}
    scan = read_scan(path, mapping=said | more)
    assert scan.geometry.wavelength == pytest.approx(layouts.WAVELENGTH) and scan.saturation == 4000
    with pytest.raises(InputError, match="energy_ev: not a number; found nine"):
        read_scan(path, mapping=said | {"energy_ev": "nine"})


def test_pictures_that_are_not_alike(tmp_path):
    folder, said = layouts.tiff_folder(tmp_path)
    tifffile.imwrite(folder / "frame_7.tif", FRAMES[7, 1:])
    scan = read_scan(folder, mapping=said)
    assert np.array_equal(scan.frames[6], FRAMES[6])
    with pytest.raises(InputError, match=r"frame_7\.tif: a page unlike the first; found uint16 \(15, 18\)"):
        scan.frames[7]
    tifffile.imwrite(folder / "frame_0.tif", np.zeros((16, 18, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match=r"frame_0\.tif: not a grey picture; found uint8 of 3 dimensions"):
        read_scan(folder, mapping=said)


def test_nothing_is_printed_about_damaged_pictures(tmp_path, capfd):
    path, said = layouts.tiff_pages(tmp_path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError):
        read_scan(path, mapping=said).frames[:]
    assert capfd.readouterr() == ("", "")


def test_opening_files_leaves_no_handlers_behind(tmp_path):
    import logging

    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 4), np.uint16))
    before = len(logging.getLogger("tifffile").handlers)
    for _ in range(5):
        TiffFrames.open(tmp_path)
    assert len(logging.getLogger("tifffile").handlers) == before


def test_as_many_frames_as_in_the_pages_of_all_files(tmp_path):
    (tmp_path / "pictures").mkdir()
    for number, part in enumerate(np.split(FRAMES, [3, 8])):
        tifffile.imwrite(tmp_path / "pictures" / f"{number}.tiff", part, photometric="minisblack")
    scan = read_scan(tmp_path / "pictures", mapping=layouts.positions_csv(tmp_path))
    assert len(scan) == COUNT and np.array_equal(scan.frames[[9, 2, 3]], FRAMES[[9, 2, 3]])


def test_a_distance_in_the_wrong_unit_costs_the_geometry_and_not_the_scan(tmp_path):
    path, mapping = layouts.dectris(tmp_path)
    with h5py.File(path, "a") as file:
        replaced(f"{DETECTOR}/detector_distance", 1950.0, units="m")(file)
    scan = read_scan(path, mapping=mapping)
    assert scan.geometry == Geometry() and scan.mask is not None and scan.metadata["beam_center_px"] == "8,9"
    assert "distance: no instrument has such a length; found 1950" in scan.metadata[NOT_BELIEVED]
    found = inspect_scan(scan)
    assert any("the detector's geometry is not used: distance: no instrument" in words for words in found.findings)
    assert read_scan(path, mapping=mapping, pixel_size=1e-8).positions_px.shape == scan.positions.shape
