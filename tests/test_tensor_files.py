import pytest
import torch

from ptychow.errors import InputError, PtychoWError
from ptychow.tensor_files import read_tensors, write_tensors


def test_round_trip_of_every_layout_and_type(tmp_path):
    tensors = {
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "transposed": torch.arange(6).reshape(2, 3).T,
        "scalar": torch.tensor(1.5, dtype=torch.float64),
        "parameter": torch.nn.Parameter(torch.ones(3)),
    }
    write_tensors(tmp_path / "t", tensors, {"words": "äöü"})
    found, texts = read_tensors(tmp_path / "t", "test file")
    assert texts == {"words": "äöü"} and found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype for name in found)


def test_pickles_are_not_opened(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "t")
    with pytest.raises(InputError, match=r"t: not a test file, or damaged .* Make it again"):
        read_tensors(tmp_path / "t", "test file", "Make it again")
    with pytest.raises(InputError, match="no such test file"):
        read_tensors(tmp_path, "test file")


def test_a_failure_names_the_file(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(*arguments):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("ptychow.tensor_files.save_file", full)
    with pytest.raises(PtychoWError, match=r"t: cannot be written \(.*No space left"):
        write_tensors(tmp_path / "t", {}, {})
    assert not list(tmp_path.iterdir())
