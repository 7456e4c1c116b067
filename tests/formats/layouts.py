"""One small scan in the layouts of other programs, written from their published descriptions with h5py, scipy, numpy
and tifffile alone: nothing here comes from the readers under test.

Frames are not square, positions differ in every coordinate: nothing can be exchanged unnoticed.
"""

import h5py
import hdf5plugin
import numpy as np
import scipy.io
import tifffile

RNG = np.random.default_rng(20)
LINES, POINTS, HEIGHT, WIDTH = 3, 4, 16, 18
COUNT = LINES * POINTS
FRAMES = RNG.poisson(30, (COUNT, HEIGHT, WIDTH)).astype(np.uint16)
DOWN, RIGHT = RNG.uniform(-2e-6, 2e-6, (2, COUNT))
POSITIONS = np.column_stack((DOWN, RIGHT))  # of the probe over the sample, m
GOOD = np.ones((HEIGHT, WIDTH), bool)
GOOD[3, 5] = GOOD[7, 11] = False
PROBE = (RNG.normal(size=(2, HEIGHT, WIDTH)) + 1j * RNG.normal(size=(2, HEIGHT, WIDTH))).astype(np.complex64)
OBJECT = np.exp(1j * RNG.normal(size=(40, 50))).astype(np.complex64)
ENERGY_EV, DISTANCE, DETECTOR_PIXEL, OBJECT_PIXEL = 8800.0, 1.25, 55e-6, 12e-9
EV = 1.602176634e-19
WAVELENGTH = 6.62607015e-34 * 299792458.0 / (ENERGY_EV * EV)


def write(group, values):
    """Datasets by path; a pair is (values, attributes)."""
    for name, value in values.items():
        value, attributes = value if isinstance(value, tuple) else (value, {})
        group[name] = value
        if attributes:
            group[name].attrs.update(attributes)


def cxi_of_pynx(folder, configuration=()):
    """As `save_ptycho_data_cxi` of PyNX writes it: no probe, translation (3, N) in float32, gzip, links."""
    translation = np.zeros((3, COUNT), np.float32)
    translation[0], translation[1] = RIGHT, DOWN
    with h5py.File(folder / "pynx.cxi", "w") as file:
        file["cxi_version"] = 140
        detector = "entry_1/instrument_1/detector_1"
        file["entry_1/sample_1/geometry_1/translation"] = translation
        file["entry_1/data_1/translation"] = h5py.SoftLink("/entry_1/sample_1/geometry_1/translation")
        file["entry_1/instrument_1/source_1/energy"] = ENERGY_EV * EV
        options = {"chunks": (1, HEIGHT, WIDTH), "compression": "gzip", "shuffle": True}
        file.create_dataset(f"{detector}/data", data=FRAMES, **options)
        write(file, {f"{detector}/distance": (DISTANCE, {"units": "m"})})
        write(file, {f"{detector}/{axis}_pixel_size": (DETECTOR_PIXEL, {"units": "m"}) for axis in "xy"})
        file.create_dataset(f"{detector}/mask", data=(~GOOD).astype(np.int8), chunks=True, compression="gzip")
        file["entry_1/data_1/data"] = h5py.SoftLink(f"/{detector}/data")
        write(file, {f"entry_1/data_1/process_1/configuration/{name}": value for name, value in configuration})
    return folder / "pynx.cxi", {}


def nexus_raster(folder):
    """As the application definition has a raster: (ny, nx, H, W), motors with units, energy in eV, plain names."""
    with h5py.File(folder / "raster.nxs", "w") as file:
        detector, sample = "entry_1/instrument_1/detector_1", "entry_1/sample_1"
        write(
            file,
            {
                "cxi_version": 160,
                "entry_1/definition": "NXcxi_ptycho",
                f"{detector}/data": FRAMES.reshape(LINES, POINTS, HEIGHT, WIDTH),
                f"{detector}/distance": (DISTANCE * 1e3, {"units": "mm"}),
                f"{detector}/x_pixel_size": (DETECTOR_PIXEL * 1e6, {"units": "um"}),
                f"{detector}/y_pixel_size": (DETECTOR_PIXEL * 1e6, {"units": "um"}),
                f"{detector}/mask": (~GOOD).astype(np.uint32),
                "entry_1/instrument_1/source_1/energy": 3e9 * EV,  # of the storage ring
                "entry_1/instrument_1/beam_1/energy": (ENERGY_EV, {"units": "eV"}),
                f"{sample}/transformations/x": (RIGHT.reshape(LINES, POINTS) * 1e3, {"units": "mm"}),
                f"{sample}/transformations/y": (DOWN.reshape(LINES, POINTS) * 1e3, {"units": "mm"}),
            },
        )
        file["entry_1/data_1/x"] = h5py.SoftLink(f"/{sample}/transformations/x")
        layout = h5py.VirtualLayout(FRAMES.shape, FRAMES.dtype)
        source = h5py.VirtualSource(".", f"/{detector}/data", (LINES, POINTS, HEIGHT, WIDTH), FRAMES.dtype)
        for line in range(LINES):
            layout[line * POINTS : (line + 1) * POINTS] = source[line]
        file.create_virtual_dataset("entry_1/data_1/data", layout)
    return folder / "raster.nxs", {}


def ptyd(folder, propagation="farfield"):
    """As `PtyScan` of ptypy saves with save="link": the first chunk in the file, the second beside it."""
    half = 7
    with h5py.File(folder / "scan.ptyd", "w") as file:
        meta = {"energy": ENERGY_EV / 1e3, "distance": DISTANCE, "psize": [DETECTOR_PIXEL] * 2}
        write(file, {f"meta/{name}": value for name, value in meta.items()})
        write(file, {"meta/label": "S00", "meta/center": "None", "meta/propagation": propagation})
        with h5py.File(folder / "scan.ptyd.part001", "w") as part:
            for group, chosen in ((file.create_group("chunks/0"), slice(half)), (part, slice(half, COUNT))):
                data = FRAMES[chosen].astype(np.float64)
                weights = np.broadcast_to(GOOD, data.shape).astype(np.float32)
                write(group, {"data": data, "positions": POSITIONS[chosen], "weights": weights})
                group["indices"] = np.arange(COUNT)[chosen]
        file["chunks/1"] = h5py.ExternalLink("scan.ptyd.part001", "/")
    return folder / "scan.ptyd", {}


def fold_slice(folder):
    """As fold_slice's prepare_data scripts do in MATLAB: h5write reverses the axes of dp(row, column, frame)."""
    with h5py.File(folder / "data_roi0_Ndp16_dp.hdf5", "w") as file:
        dp = np.swapaxes(FRAMES, 1, 2).astype(np.float32)
        file.create_dataset("dp", data=dp, chunks=(1, WIDTH, HEIGHT), compression="gzip", compression_opts=4)
    with h5py.File(folder / "data_roi0_Ndp16_para.hdf5", "w") as file:
        write(file, {"ppX": -RIGHT[None], "ppY": -DOWN[None], "lambda": [[WAVELENGTH]], "dx": [[OBJECT_PIXEL]]})
    return folder / "data_roi0_Ndp16_dp.hdf5", {}


def corners():
    """Integer corners of patches in a 40 x 50 object, counted from 0."""
    return np.random.default_rng(4).integers(2, 20, (COUNT, 2))


def shelves_prepared(folder):
    """As `core.prep_h5data` of PtychoShelves: frames with zero frequency in the corner, module gaps, bad pixels."""
    good = np.fft.ifftshift(GOOD)
    with h5py.File(folder / "S00001_data.h5", "w") as file:
        file.attrs["format"] = 2
        file["measurement/n0/data"] = np.fft.ifftshift(FRAMES, axes=(1, 2)).astype(np.float32)
        file["measurement/n0/positions"] = corners().astype(np.uint32)
        file["detector/n0/modules"] = np.array([[HEIGHT, WIDTH, 0, 0]], np.uint32)
        file["detector/n0/bad_pixels"] = np.argwhere(~good).astype(np.uint32)
    return folder / "S00001_data.h5", {}


def matlab_positions():
    """outputs.probe_positions of the patches of `corners`, by find_reconstruction_ROI_external.m."""
    first = corners() + 1  # MATLAB counts from 1
    offset = np.ceil((np.array(OBJECT.shape) - (HEIGHT, WIDTH)) / 2)
    return (first - offset)[:, ::-1]


def matlab_5(folder):
    """Niter100.mat of fold_slice, saved with -v6, beside its frames."""
    frames, _ = fold_slice(folder)
    p = {"lambda": WAVELENGTH, "dx_spec": [OBJECT_PIXEL, OBJECT_PIXEL], "scan_number": 1.0}
    outputs = {"probe_positions": matlab_positions(), "fourier_error_out": [3.0, 2.0]}
    content = {"object": OBJECT, "probe": np.moveaxis(PROBE, 0, 2), "p": p, "outputs": outputs}
    scipy.io.savemat(folder / "Niter100.mat", content)
    return folder / "Niter100.mat", {"frames": str(frames)}


def matlab_5_frames(folder):
    """dp(row, column, x, y) and positions in one old .mat file, compressed."""
    dp = np.moveaxis(FRAMES, 0, 2).reshape(HEIGHT, WIDTH, POINTS, LINES, order="F").astype(np.float64)
    content = {"dp": dp, "ppX": -RIGHT, "ppY": -DOWN, "notes": "text"}
    scipy.io.savemat(folder / "rawdata.mat", content, do_compression=True)
    return folder / "rawdata.mat", {}


def matlab_73(folder):
    """The same reconstruction with -v7.3: HDF5 behind 512 bytes, axes reversed, complex as real and imag."""
    pair = np.dtype([("real", "<f4"), ("imag", "<f4")])

    def stored(values):
        values = np.asarray(values).T
        return np.ascontiguousarray(values.astype(np.complex64)).view(pair) if np.iscomplexobj(values) else values

    with h5py.File(folder / "Niter100_73.mat", "w", userblock_size=512) as file:
        content = {
            "object": stored(OBJECT),
            "probe": stored(np.moveaxis(PROBE, 0, 2)),
            "p/lambda": [[WAVELENGTH]],
            "p/dx_spec": [[OBJECT_PIXEL], [OBJECT_PIXEL]],
            "outputs/probe_positions": stored(matlab_positions()),
            "dp": np.swapaxes(FRAMES, 1, 2),
        }
        write(file, content)
    with (folder / "Niter100_73.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return folder / "Niter100_73.mat", {}


def product_arrays():
    """What a Ptychodus product holds of the scan; indexes run backwards."""
    back = np.arange(COUNT)[::-1]
    return {
        "probe_position_indexes": back,
        "probe_position_x_m": RIGHT[back],
        "probe_position_y_m": DOWN[back],
        "probe": PROBE[None],
        "object": OBJECT[None],
        "object_layer_spacing_m": np.zeros(0),
        "loss_epochs": np.arange(2),
        "loss_values": np.array([2.0, 1.0]),
    }


PRODUCT_FACTS = {
    "name": "scan 7",
    "comments": "",
    "detector_object_distance_m": DISTANCE,
    "probe_photon_count": 1e6,
    "exposure_time_s": 0.1,
    "mass_attenuation_m2_kg": 0.0,
    "tomography_angle_deg": 0.0,
}
OBJECT_FACTS = {"center_x_m": 3e-7, "center_y_m": -2e-7, "pixel_width_m": OBJECT_PIXEL, "pixel_height_m": OBJECT_PIXEL}


def diffraction(path):
    """As `save_diffraction_data` of Ptychodus."""
    with h5py.File(path, "w") as file:
        for name, values in {"indexes": np.arange(COUNT), "patterns": FRAMES, "bad_pixels": ~GOOD}.items():
            file.create_dataset(name, data=values, compression="lzf")
        file["patterns"].attrs.update(
            {"detector_pixel_width_m": DETECTOR_PIXEL, "detector_pixel_height_m": DETECTOR_PIXEL}
        )


def ptychodus_h5(folder):
    """As `save_product` of Ptychodus, in its folder."""
    diffraction(folder / "diffraction.h5")
    with h5py.File(folder / "product-out.h5", "w") as file:
        write(file, product_arrays())
        file.attrs.update(PRODUCT_FACTS | {"probe_energy_eV": ENERGY_EV})
        file["object"].attrs.update(OBJECT_FACTS)
        file["probe"].attrs.update({"pixel_width_m": OBJECT_PIXEL, "pixel_height_m": OBJECT_PIXEL})
    return folder / "product-out.h5", {}


def ptychodus_npz(folder):
    """As `NPZProductFileIO` of Ptychodus, the frames named."""
    diffraction(folder / "frames.h5")
    facts = PRODUCT_FACTS | {"photon_energy_eV": ENERGY_EV, "far_field": True}
    of_object = {f"object_{name}": value for name, value in OBJECT_FACTS.items()}
    of_probe = {"probe_pixel_width_m": OBJECT_PIXEL, "probe_pixel_height_m": OBJECT_PIXEL}
    np.savez(folder / "product.npz", **product_arrays(), **facts, **of_object, **of_probe)
    return folder / "product.npz", {"frames": str(folder / "frames.h5")}


def positions_csv(folder):
    """Positions as a beamline's script writes them."""
    lines = ["# scan 7", "# index, y_um, x_um"]
    lines += [f"{n}, {y * 1e6!r}, {x * 1e6!r}" for n, (y, x) in enumerate(POSITIONS.tolist())]
    (folder / "positions.csv").write_text("\n".join(lines) + "\n")
    return {"positions_file": str(folder / "positions.csv")}


DECTRIS = {
    "entry/instrument/beam/incident_wavelength": (WAVELENGTH * 1e10, {"units": "angstrom"}),
    "entry/instrument/detector/beam_center_x": (9.0, {"units": "pixel"}),
    "entry/instrument/detector/beam_center_y": (8.0, {"units": "pixel"}),
    "entry/instrument/detector/x_pixel_size": (DETECTOR_PIXEL, {"units": "m"}),
    "entry/instrument/detector/y_pixel_size": (DETECTOR_PIXEL, {"units": "m"}),
}
PIXEL_MASK = np.where(GOOD, 0, np.where(np.arange(WIDTH) < 8, 1, 16)).astype(np.uint32)


def dectris(folder):
    """FileWriter 1: a master and three data files of five frames, bitshuffle and LZ4."""
    with h5py.File(folder / "series_7_master.h5", "w") as file:
        for number, start in enumerate(range(0, COUNT, 5), 1):
            name = f"series_7_data_{number:06d}.h5"
            with h5py.File(folder / name, "w") as part:
                values = FRAMES[start : start + 5].astype(np.uint32)
                compression = hdf5plugin.Bitshuffle(cname="lz4")
                part.create_dataset("entry/data/data", data=values, chunks=(1, HEIGHT, WIDTH), **compression)
            file[f"entry/data/data_{number:06d}"] = h5py.ExternalLink(name, "/entry/data/data")
        specific = "entry/instrument/detector/detectorSpecific"
        write(file, DECTRIS | {"entry/instrument/detector/detector_distance": (DISTANCE, {"units": "m"})})
        write(file, {f"{specific}/pixel_mask": PIXEL_MASK, f"{specific}/countrate_correction_count_cutoff": 245916})
    return folder / "series_7_master.h5", positions_csv(folder)


def dectris_2(folder):
    """FileWriter 2: one virtual dataset (images, channels, rows, columns) of two thresholds."""
    shape = (COUNT, 2, HEIGHT, WIDTH)
    with h5py.File(folder / "series_8_data_1.h5", "w") as part:
        part["data"] = np.stack((FRAMES + np.uint16(1), FRAMES), axis=1)
    with h5py.File(folder / "series_8_master.h5", "w") as file:
        layout = h5py.VirtualLayout(shape, np.uint16)
        layout[:] = h5py.VirtualSource("series_8_data_1.h5", "data", shape)
        file.create_virtual_dataset("entry/data/data", layout)
        more = {"entry/definition": "NXmx", "entry/program_name": "DECTRIS-DAQ"}
        detector = "entry/instrument/detector"
        more |= {f"{detector}/distance": (DISTANCE, {"units": "m"}), f"{detector}/saturation_value": 245916}
        write(file, DECTRIS | more | {f"{detector}/threshold_1_channel/pixel_mask": PIXEL_MASK})
    return folder / "series_8_master.h5", positions_csv(folder) | {"channel": "1"}


def tiff_pages(folder):
    """One file of twelve pages."""
    tifffile.imwrite(folder / "stack.tif", FRAMES, photometric="minisblack")
    return folder / "stack.tif", positions_csv(folder)


def tiff_folder(folder):
    """A folder of one page a file, numbered without leading zeros, deflated, big-endian."""
    (folder / "pictures").mkdir()
    for number, frame in enumerate(FRAMES):
        options = {"compression": "zlib", "byteorder": ">"}
        tifffile.imwrite(folder / "pictures" / f"frame_{number}.tif", frame, **options)
    (folder / "pictures" / "notes.txt").write_text("not a picture")
    return folder / "pictures", positions_csv(folder)


def tike(folder, save=np.savez):
    """npz with corners in object pixels."""
    save(folder / "tike.npz", diffraction=FRAMES, positions_px=corners().astype(np.float32), probe=PROBE)
    return folder / "tike.npz", {}


def ptychonn(folder):
    """The raster of PtychoNN's data set."""
    np.savez(folder / "raster_diff.npz", arr_0=FRAMES.reshape(LINES, POINTS, HEIGHT, WIDTH))
    return folder / "raster_diff.npz", {"step_px": "3"}


def npy(folder):
    """Frames alone."""
    np.save(folder / "stack.npy", FRAMES)
    return folder / "stack.npy", positions_csv(folder)


def npz(folder):
    """Frames and positions under names of one's own, beside what is neither."""
    np.savez_compressed(folder / "run_7.npz", dp=FRAMES, xy=POSITIONS * 1e6, note="a sample", sum=FRAMES.sum(0))
    return folder / "run_7.npz", {"positions": "xy", "position_unit": "um"}


def home_made(folder):
    """HDF5 that only a mapping explains."""
    with h5py.File(folder / "home_made.h5", "w") as file:
        file["frames"], file["xy"], file["probe"] = FRAMES, POSITIONS, PROBE
    return folder / "home_made.h5", {"frames": "/frames", "positions": "/xy", "position_unit": "m", "probe": "/probe"}


def nsls2(folder, angle=0.0, **changed):
    """As ptycho_gui's converters of HXN save a scan, and as its reconstruction reads it: x is a frame's first axis."""
    amplitudes = np.fft.fftshift(np.sqrt(FRAMES.astype(float)).transpose(0, 2, 1), axes=(1, 2))
    x = RIGHT / abs(np.cos(np.deg2rad(angle)) if abs(angle) <= 45 else np.sin(np.deg2rad(angle)))
    stored = {"diffamp": amplitudes, "points": np.array([x, DOWN]) * 1e6, "angle": angle, "x_range": 4.0, "dr_x": 0.1}
    lengths = {"z_m": DISTANCE, "lambda_nm": WAVELENGTH * 1e9, "ccd_pixel_um": DETECTOR_PIXEL * 1e6}
    with h5py.File(folder / "scan_39.h5", "w") as file:
        write(file, {**stored, **lengths, **changed})
    return folder / "scan_39.h5", {}


# Layout: (how to write it, the format that must recognise it).
LAYOUTS = {
    "NSLS-II": (nsls2, "nsls2"),
    "cxi of PyNX": (cxi_of_pynx, "cxi"),
    "NXcxi_ptycho raster": (nexus_raster, "nxcxi"),
    "ptyd": (ptyd, "ptyd"),
    "fold_slice pair": (fold_slice, "ptychoshelves"),
    "PtychoShelves prepared": (shelves_prepared, "ptychoshelves"),
    "mat 5": (matlab_5, "ptychoshelves"),
    "mat 5 with frames": (matlab_5_frames, "ptychoshelves"),
    "mat 7.3": (matlab_73, "ptychoshelves"),
    "Ptychodus h5": (ptychodus_h5, "ptychodus"),
    "Ptychodus npz": (ptychodus_npz, "ptychodus"),
    "Dectris 1": (dectris, "dectris"),
    "Dectris 2": (dectris_2, "dectris"),
    "TIFF pages": (tiff_pages, "tiff"),
    "TIFF folder": (tiff_folder, "tiff"),
    "tike npz": (tike, "npz"),
    "PtychoNN": (ptychonn, "ptychonn"),
    "npy": (npy, "numpy"),
    "npz": (npz, "numpy"),
    "home made": (home_made, "hdf5"),
}
