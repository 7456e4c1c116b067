"""Which files a scan consists of."""

import pytest

from ptychow.formats.companions import files_of


@pytest.mark.parametrize(
    ("names", "others"),
    [
        (["run[1]_master.h5", "run[1]_data_000001.h5", "run[1]_data_000002.h5", "run2_data_000001.h5"], 2),
        (["a_dp.hdf5", "a_para.hdf5", "b_para.hdf5"], 1),
        (["product.h5", "diffraction.h5", "other.h5"], 1),
        (["diffraction.h5", "other.h5"], 0),
        (["scan.cxi", "scan_labelled.cxi"], 0),
    ],
)
def test_by_name(tmp_path, names, others):
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in files_of(tmp_path / names[0])] == names[: 1 + others]


def test_those_that_a_mapping_names(tmp_path):
    for name in ("scan.h5", "xy.csv"):
        (tmp_path / name).touch()
    mapping = {"positions_file": str(tmp_path / "xy.csv"), "frames": "/entry/data", "position_unit": "um"}
    assert files_of(tmp_path / "scan.h5", mapping) == [tmp_path / "scan.h5", tmp_path / "xy.csv"]
