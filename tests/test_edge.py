"""docs/edge.md: its lines run with onnxruntime alone."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptychow.engines.torch_engine import TorchEngine

PAGE = Path(__file__).parents[1] / "docs" / "edge.md"
# Whatever else is installed here is not there for these lines.
BLOCKER = """
import sys
for name in ("torch", "ptychow", "onnx", "openvino"):
    sys.modules[name] = None
"""


def test_the_lines_of_the_page_run_without_torch_and_ptychow(model_file, trained, scan, tmp_path, ptychow):
    pytest.importorskip("onnxruntime")
    text = PAGE.read_text(encoding="utf-8")
    shell = text.split("```sh\n")[1].split("```")[0].split()
    assert shell[:2] == ["ptychow", "export"] and shell[2] == "w3" and shell[-1] == "w3_counts.onnx"
    code, _, complaint = ptychow(*shell[1:2], model_file, *shell[3:-1], tmp_path / shell[-1])
    assert code == 0, complaint
    np.save(tmp_path / "frames.npy", scan.frames[:5])
    lines = text.split("```python\n")[1].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKER + lines], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    inputs = trained.model.card.preparation.apply(scan.frames[:5])
    expected = TorchEngine(trained.model, "cpu").predict(inputs)
    np.testing.assert_allclose(np.load(tmp_path / "patches.npy"), expected, atol=1e-5)
