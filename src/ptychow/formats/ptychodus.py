"""Ptychodus products (.h5 and .npz): positions, probe and object of a scan, whose frames lie beside it.

    probe_position_{indexes,x_m,y_m}    (N,)
    probe                               (H, W), (modes, H, W) or (variations, modes, H, W), complex
    object                              (rows, columns) or (layers, rows, columns), complex; attributes
                                        center_{x,y}_m, pixel_{width,height}_m (in npz arrays object_center_x_m, ...)
    attributes (in npz arrays)          detector_object_distance_m, photon_energy_eV (once probe_energy_eV),
                                        far_field; 0 where unknown

Frames are `patterns` (N, H, W) with `indexes` (N,) and `bad_pixels` (H, W): in the product itself, where PtychoW writes
them so that Ptychodus opens one file as both; else in the file that --map frames=FILE names; else in `diffraction.h5`
beside it, as Ptychodus lays out its folders. Frames and positions with the same index belong together.

A position is where the middle of the probe array lies, index (N - 1) / 2, and the object's centre is the middle of its
array likewise (`ObjectGeometry` of Ptychodus). Names as in `ProductFileKeys` and `DiffractionFileKeys` of its
`ptychodus.api.io`, older spellings included.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.files import atomic_path
from ptychow.formats.base import Format
from ptychow.formats.cxi import Advance, stream_frames
from ptychow.formats.cxi_reading import near_field
from ptychow.formats.hdf5_files import holds, open_hdf5, read_hdf5_array
from ptychow.formats.lazy import HDF5Frames, LazyFrames, NumpyFrames
from ptychow.formats.new_hdf5 import new_hdf5
from ptychow.formats.numpy_files import npz_members, read_array
from ptychow.formats.probes import probe_modes
from ptychow.formats.units import ELECTRONVOLT, PLANCK_TIMES_LIGHT, wavelength_of
from ptychow.scan import Geometry, ObjectImage, Scan, Subset

KEYS = {"frames": "file with Ptychodus's patterns (.h5 or .npz), where the product holds none"}
INDEXES, ACROSS, DOWN = (f"probe_position_{name}" for name in ("indexes", "x_m", "y_m"))
PATTERNS = "patterns"
BESIDE = "diffraction.h5"


def recognises(path: Path) -> bool:
    """Whether the file holds a product's positions."""
    if h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            return all(holds(file, name, path) for name in (ACROSS, DOWN))
    return {ACROSS, DOWN} <= set(npz_members(path))


def read(path: Path, mapping: Mapping[str, str]) -> Scan:
    """The scan of a product and its frames. Raises InputError for what is missing, damaged, or a near field."""
    with _opened(path) as product:
        if product.number("far_field", 1.0) == 0:
            raise near_field(path, "far_field")
        pixel = _object_pixel(product)
        frames, indexes, bad, detector_pixel = _frames(path, product, mapping)
        positions = np.column_stack((product.vector(DOWN), product.vector(ACROSS)))
        wanted = product.vector(INDEXES) if product.has(INDEXES) else np.arange(len(positions))
        if len(wanted) != len(positions):
            raise InputError("as many indexes as positions", file=path, found=f"{len(wanted)}, {len(positions)}")
        _, of_frame, of_position = np.intersect1d(indexes, wanted, return_indices=True)
        if not len(of_frame):
            raise InputError("no frame has the index of a position", file=path, field=INDEXES)
        order = np.argsort(of_frame)
        of_frame, of_position = of_frame[order], of_position[order]
        whole = np.array_equal(of_frame, np.arange(frames.shape[0]))
        energy = product.number("photon_energy_eV", product.number("probe_energy_eV", 0.0))
        scan = Scan(
            frames=frames if whole else Subset(frames, of_frame),
            positions=positions[of_position],
            position_unit="m",
            geometry=Geometry(
                wavelength=wavelength_of(energy * ELECTRONVOLT),
                distance=product.number("detector_object_distance_m", 0.0) or None,
                detector_pixel=detector_pixel,
                pixel_size=pixel,
            ),
            mask=None if bad is None else ~bad,
            probe=probe_modes(product.array("probe")) if product.has("probe") else None,
            raster=frames.raster if whole and isinstance(frames, LazyFrames) else None,
            name=path.name,
        )
        return replace(scan, object=_object(product, scan)) if product.has("object") and pixel else scan


def write_product(path: str | os.PathLike[str], scan: Scan, progress: Advance | None = None) -> None:
    """Write positions, probe, object and frames as a product; as npz where the name ends in .npz.

    Raises InputError for a scan without probe, object or object pixel, which a product cannot be without, and
    PtychoWError where the file cannot be written.
    """
    path = Path(path)
    arrays, attributes = _product(scan)
    good = np.ones(scan.frame_shape, bool) if scan.mask is None else scan.mask
    arrays |= {"indexes": np.arange(len(scan)), "bad_pixels": ~good}
    pixel = scan.geometry.detector_pixel
    detector = {} if pixel is None else {f"detector_pixel_{side}_m": pixel for side in ("width", "height")}
    if path.suffix == ".npz":
        flat = {f"object_{name}": value for name, value in attributes["object"].items()}
        flat |= {f"probe_{name}": value for name, value in attributes["probe"].items()}
        with atomic_path(path) as temporary:
            contents: dict[str, Any] = {**arrays, **attributes[""], **flat, **detector, PATTERNS: scan.frames[:]}
            np.savez(temporary, **contents)
        if progress is not None:
            progress(len(scan))
        return
    with new_hdf5(path) as (file, disk):
        for name, values in arrays.items():
            file[name] = values
        for name, facts in attributes.items():
            (file[name] if name else file).attrs.update(facts)
        stream_frames(file, disk, PATTERNS, scan.frames, progress)
        file[PATTERNS].attrs.update(detector)


def leaves_out(scan: Scan) -> list[str]:
    """What of a scan a product has no place for."""
    parts = {
        "saturation": scan.saturation,
        "nominal positions": scan.nominal_positions,
        "label patches": scan.label_patches,
        "raster": scan.raster,
        "metadata": scan.metadata or None,
    }
    return [name for name, value in parts.items() if value is not None]


def _product(scan: Scan) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Arrays, and attributes of the file (""), the probe and the object; 0 is Ptychodus's word for unknown."""
    geometry, pixel = scan.geometry, scan.geometry.pixel_size
    if scan.probe is None or scan.object is None or pixel is None:
        lacking = {"probe": scan.probe, "object": scan.object, "object pixel": pixel}
        raise InputError(
            "a Ptychodus product cannot be without",
            file=scan.name,
            field=", ".join(name for name, value in lacking.items() if value is None),
            remedy="Reconstruct it first (ptychow label), and give --pixel-size-nm where it is unknown",
        )
    metres = scan.positions if scan.position_unit == "m" else scan.positions * pixel
    energy = PLANCK_TIMES_LIGHT / geometry.wavelength / ELECTRONVOLT if geometry.wavelength else 0.0
    middle = (np.array(scan.object.origin) + _origin_offset(scan.object.image.shape, scan.probe.shape[1:])) * pixel
    arrays = {
        INDEXES: np.arange(len(scan)),
        ACROSS: metres[:, 1],
        DOWN: metres[:, 0],
        "probe": scan.probe[None],
        "object": scan.object.image[None],
        "object_layer_spacing_m": np.zeros(0),
        "loss_epochs": np.zeros(0, int),
        "loss_values": np.zeros(0),
    }
    of_file = {
        "name": scan.name,
        "comments": scan.object.source,
        "detector_object_distance_m": geometry.distance or 0.0,
        "photon_energy_eV": energy,
        "probe_energy_eV": energy,
        "probe_photon_count": float(np.sum(np.abs(scan.probe) ** 2)),
        "exposure_time_s": 0.0,
        "mass_attenuation_m2_kg": 0.0,
        "tomography_angle_deg": 0.0,
        "far_field": True,
    }
    pixels = {"pixel_width_m": pixel, "pixel_height_m": pixel}
    of_object = {"center_x_m": middle[1], "center_y_m": middle[0], **pixels}
    return arrays, {"": of_file, "probe": pixels, "object": of_object}


def _origin_offset(shape: tuple[int, ...], probe_shape: tuple[int, ...]) -> NDArray[np.float64]:
    """From the object's pixel [0, 0] to its centre, as seen by positions of the probe's pixel [H//2, W//2]."""
    size, probe = np.array(shape), np.array(probe_shape)
    return (size - 1) / 2 + (probe // 2 - (probe - 1) / 2)


def _object(product: _Product, scan: Scan) -> ObjectImage | None:
    """The object; None where it has several layers, which no single transmission stands for."""
    image, pixel = product.array("object"), scan.geometry.pixel_size
    if image.ndim == 3 and len(image) == 1:
        image = image[0]
    if image.ndim != 2 or pixel is None:
        return None
    centre = [product.number(f"center_{axis}_m", 0.0, "object") for axis in "yx"]
    probe = scan.frame_shape if scan.probe is None else scan.probe.shape[1:]
    row, column = np.array(centre) / pixel - _origin_offset(image.shape, probe)
    source = product.text("comments") or "Ptychodus product"
    return ObjectImage(image.astype(np.complex64), (float(row), float(column)), source)


def _object_pixel(product: _Product) -> float | None:
    across, down = (product.number(f"pixel_{side}_m", 0.0, "object") for side in ("width", "height"))
    if across and down and not np.isclose(across, down, rtol=1e-3):
        found = f"{across:.4g} m x {down:.4g} m"
        raise InputError("object pixels are not square", file=product.path, field="object", found=found)
    return across or None


def _frames(
    path: Path, product: _Product, mapping: Mapping[str, str]
) -> tuple[LazyFrames, NDArray[Any], NDArray[np.bool_] | None, float | None]:
    """(frames, their indexes, bad pixels, detector pixel) from the product itself or the file of frames."""
    where = path
    if "frames" in mapping:
        where = Path(mapping["frames"])
    elif not product.has(PATTERNS):
        where = path.with_name(BESIDE)
    if not where.is_file():
        raise InputError(
            "a Ptychodus product holds no frames",
            file=path,
            expected=f"{BESIDE} beside it",
            remedy="Name the file that does: --map frames=FILE",
        )
    with _opened(where) as found:
        frames = found.frames()
        indexes = found.vector("indexes") if found.has("indexes") else np.arange(frames.shape[0])
        if len(indexes) != frames.shape[0]:
            fact = f"{len(indexes)} for {frames.shape[0]} frames"
            raise InputError("does not fit the frames", file=where, field="indexes", found=fact)
        bad = found.array("bad_pixels") if found.has("bad_pixels") else None
        pixel = found.number("detector_pixel_width_m", 0.0, PATTERNS, prefix="") or None
        return frames, indexes, None if bad is None or not bad.any() else bad != 0, pixel


@dataclass(frozen=True)
class _Product:
    """One vocabulary for both kinds of file; `file` is None for npz."""

    path: Path
    file: h5py.File | None

    def has(self, name: str) -> bool:
        """Whether there is an array of this name."""
        return name in npz_members(self.path) if self.file is None else holds(self.file, name, self.path)

    def array(self, name: str) -> NDArray[Any]:
        """An array. Raises InputError where it is missing or no numbers."""
        return read_array(self.path, name) if self.file is None else read_hdf5_array(self.file, name, self.path)

    def vector(self, name: str) -> NDArray[Any]:
        """A real array of one dimension. Raises InputError for any other."""
        values = self.array(name)
        if values.ndim != 1 or values.dtype.kind not in "iuf":
            found = f"{values.dtype} {values.shape}"
            raise InputError("not a list of numbers", file=self.path, field=name, found=found)
        return values

    def number(self, name: str, default: float, of: str = "", prefix: str | None = None) -> float:
        """An attribute of the file or of an array; in npz an array of its own, named with a prefix."""
        if of and not self.has(of):
            return default
        if self.file is None:
            member = f"{of + '_' if of and prefix is None else ''}{name}"
            value = read_array(self.path, member) if member in npz_members(self.path) else np.array(default)
        else:
            value = np.asarray((self.file[of] if of else self.file).attrs.get(name, default))
        if value.size != 1 or value.dtype.kind not in "biuf":
            raise InputError("not a number", file=self.path, field=name, found=f"{value.dtype} {value.shape}")
        return float(np.ravel(value)[0])

    def text(self, name: str) -> str:
        """A text of the HDF5 file; "" where there is none, and for npz, whose texts are not plain arrays."""
        value = "" if self.file is None else self.file.attrs.get(name, "")
        return value if isinstance(value, str) else ""

    def frames(self) -> LazyFrames:
        """The patterns, not read yet."""
        return NumpyFrames.open(self.path, PATTERNS) if self.file is None else HDF5Frames.open(self.path, PATTERNS)


@contextmanager
def _opened(path: Path) -> Iterator[_Product]:
    if h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            yield _Product(path, file)
    else:
        yield _Product(path, None)


FORMAT = Format(
    name="ptychodus",
    title="Ptychodus product",
    recognises=recognises,
    read=read,
    keys=KEYS,
    write=write_product,
    suffix=".h5",
    leaves_out=leaves_out,
)
