"""`ptychow export`: a Model as one file."""

import json

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


def test_writes_the_file_and_says_what_it_takes(model_file, tmp_path, ptychow):
    code, shown, complaint = ptychow("export", model_file, "--output", tmp_path / "edge.onnx")
    assert (code, complaint) == (0, "") and (tmp_path / "edge.onnx").is_file()
    assert "input patterns: float32, batch x 1 x 32 x 32; outputs amplitude and phase" in shown
    target = tmp_path / "edge.xml"
    code, shown, _ = ptychow("export", model_file, "--to", "openvino", "-o", target, "--batch", "4", "--json")
    summary = json.loads(shown)
    assert code == 0 and summary["input_shape"] == [4, 1, 32, 32] and summary["difference"] < 1e-4
    assert summary["wrote"] == {"openvino": str(target), "its weights": str(target.with_suffix(".bin"))}


def test_by_default_it_lies_beside_the_model(model_file, tmp_path, ptychow, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert ptychow("export", model_file, "--quiet") == (0, "", "")
    assert model_file.with_suffix(".onnx").is_file() and not list((tmp_path / "elsewhere").iterdir())


def test_the_preparation_may_be_inside(model_file, tmp_path, ptychow):
    target = tmp_path / "edge.onnx"
    code, shown, _ = ptychow("export", model_file, "-o", target, "--preparation-inside", "--counts", "uint32", "--json")
    assert code == 0 and json.loads(shown)["input_type"] == "uint32"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--to", "tflite"], "--to: unknown"),
        (["--batch", "many"], "--batch: no batch"),
        (["--batch", "0"], "--batch: no batch"),
        (["--counts", "float32"], "--counts: unknown"),
        (["--to", "torch"], "another ending"),
        (["--output", "model.safetensors"], "would overwrite the input"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_code_2(options, words, model_file, ptychow, monkeypatch):
    monkeypatch.chdir(model_file.parent)
    before = {item.name for item in model_file.parent.iterdir()}
    code, shown, complaint = ptychow("export", "model.safetensors", "-o", "edge.onnx", *options)
    assert (code, shown) == (2, "") and complaint.count("\n") == 1 and words in complaint
    assert {item.name for item in model_file.parent.iterdir()} == before
