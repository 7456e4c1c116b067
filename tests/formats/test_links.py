"""Links between HDF5 files: followed within the folder, never out of it, never in a circle, never to zeros."""

import h5py
import layouts
import numpy as np
import pytest
from layouts import FRAMES, POSITIONS

from ptychow.errors import InputError
from ptychow.formats import read_scan
from ptychow.formats.hdf5_files import holds

MAPPING = {"frames": "/frames", "positions": "/xy", "position_unit": "m"}


@pytest.fixture
def folder(tmp_path):
    """A folder with data, and a file outside it that nobody may see."""
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["frames"] = FRAMES
    (tmp_path / "scans" / "below").mkdir(parents=True)
    for place in ("scans", "scans/below"):
        with h5py.File(tmp_path / place / "data.h5", "w") as file:
            file["frames"] = FRAMES
    return tmp_path / "scans"


def master(folder, link):
    with h5py.File(folder / "master.h5", "w") as file:
        file["xy"] = POSITIONS
        link(file)
    return folder / "master.h5"


def external(name, path="/frames"):
    def link(file):
        file["frames"] = h5py.ExternalLink(str(name), path)

    return link


def virtual(name):
    def link(file):
        layout = h5py.VirtualLayout(FRAMES.shape, FRAMES.dtype)
        layout[:] = h5py.VirtualSource(str(name), "frames", FRAMES.shape)
        file.create_virtual_dataset("frames", layout)

    return link


@pytest.mark.parametrize("name", ["data.h5", "below/data.h5", "./data.h5"])
@pytest.mark.parametrize("kind", [external, virtual])
def test_within_the_folder(folder, name, kind):
    assert np.array_equal(read_scan(master(folder, kind(name)), mapping=MAPPING).frames[:], FRAMES)


def test_an_absolute_name_within_the_folder_and_one_that_has_moved_here(folder):
    for name in (folder / "data.h5", "/nowhere/at/all/data.h5"):
        assert np.array_equal(read_scan(master(folder, external(name)), mapping=MAPPING).frames[3], FRAMES[3])


@pytest.mark.parametrize("kind", [external, virtual])
@pytest.mark.parametrize("name", ["../secret.h5", "below/../../secret.h5", "absolute"])
def test_out_of_the_folder(folder, name, kind):
    name = folder.parent / "secret.h5" if name == "absolute" else name
    path = master(folder, kind(name))
    with pytest.raises(InputError, match=r"master\.h5: /?frames: a link to a file outside the folder is not followed"):
        read_scan(path, mapping=MAPPING)


def test_out_of_the_folder_by_a_way_round(folder):
    with h5py.File(folder / "between.h5", "w") as file:
        file["frames"] = h5py.ExternalLink("../secret.h5", "/frames")
        file["group/soft"] = h5py.SoftLink("/frames")
    for kind in (external("between.h5"), external("between.h5", "/group/soft"), virtual("between.h5")):
        with pytest.raises(InputError, match="outside the folder is not followed"):
            read_scan(master(folder, kind), mapping=MAPPING)


def test_a_group_out_of_the_folder(folder):
    path = master(folder, lambda file: file.update({"group": h5py.ExternalLink("../secret.h5", "/")}))
    with pytest.raises(InputError, match="outside the folder"):
        read_scan(path, mapping=MAPPING | {"frames": "/group/frames"})


@pytest.mark.parametrize("kind", [external, virtual])
def test_to_nowhere(folder, kind):
    with pytest.raises(InputError, match=r"(leads nowhere|some are missing); found .*gone\.h5") as caught:
        read_scan(master(folder, kind("gone.h5")), mapping=MAPPING)
    assert "Copy" in str(caught.value) and str(caught.value).count("\n") == 0


def test_to_something_missing_in_a_file_that_is_there(folder):
    with h5py.File(folder / "empty.h5", "w"):
        pass
    for kind in (external("empty.h5"), virtual("empty.h5")):
        with pytest.raises(InputError, match="no such dataset"):
            read_scan(master(folder, kind), mapping=MAPPING)


def test_circles(folder):
    def soft(file):
        file["a"], file["frames"] = h5py.SoftLink("/frames"), h5py.SoftLink("/a")

    for link in (soft, external("master.h5")):
        with pytest.raises(InputError, match="links lead in a circle"):
            read_scan(master(folder, link), mapping=MAPPING)
    with pytest.raises(InputError, match="made of virtual datasets, one made of the other"):
        read_scan(master(folder, virtual(".")), mapping=MAPPING)


def test_values_in_a_file_of_raw_bytes(folder):
    (folder.parent / "secret.bin").write_bytes(FRAMES.tobytes())

    def link(file):
        external = [(str(folder.parent / "secret.bin"), 0, FRAMES.nbytes)]
        file.create_dataset("frames", FRAMES.shape, FRAMES.dtype, external=external)

    with pytest.raises(InputError, match="frames: keeps its values in a file of raw bytes"):
        read_scan(master(folder, link), mapping=MAPPING)


def test_a_pipe_is_no_file(folder):
    import os

    os.mkfifo(folder / "pipe.h5")
    with pytest.raises(InputError, match="leads nowhere"):
        read_scan(master(folder, external("pipe.h5")), mapping=MAPPING)


def test_soft_links_relative_and_absolute(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/frames"] = FRAMES
        file["group/near"] = h5py.SoftLink("frames")
        file["far"] = h5py.SoftLink("/group/near")
        file["through"] = h5py.SoftLink("group")
        file["gone"] = h5py.SoftLink("/nothing")
    with h5py.File(tmp_path / "a.h5") as file:
        for name in ("/far", "group/./near", "through/frames", "/through/near", "/"):
            assert holds(file, name, tmp_path / "a.h5")
        for name in ("gone", "group/frames/deeper", "gone/deeper", "nothing"):
            assert not holds(file, name, tmp_path / "a.h5")


@pytest.mark.parametrize("kind", ["Dectris 1", "ptyd", "Dectris 2"])
def test_a_lost_part_of_a_scan_in_several_files(kind, tmp_path):
    path, mapping = layouts.LAYOUTS[kind][0](tmp_path)
    lost = next(item for item in sorted(tmp_path.iterdir()) if "data_" in item.name or "part001" in item.name)
    lost.unlink()
    with pytest.raises(InputError, match=r"leads nowhere|made of files of which some are missing") as caught:
        read_scan(path, mapping=mapping)
    assert lost.name in str(caught.value) and path.name in str(caught.value)
