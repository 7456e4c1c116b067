"""`ptychow simulate`: what it writes can be read, and what it cannot do it says in one line."""

import json
import re
from typing import get_type_hints

import numpy as np
import pytest

from ptychow.cli import main
from ptychow.cli.simulate import simulate
from ptychow.formats import read_scan
from ptychow.optics.experiment import Experiment
from ptychow.optics.twins import twin


def run(*arguments: object) -> int:
    """Exit code of `ptychow simulate ARGUMENTS`."""
    try:
        main(["simulate", *map(str, arguments)])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_twin_is_written_whole(tmp_path, capsys):
    target = tmp_path / "scan.cxi"
    code = run("--twin", "sim-26id", "--seed", 2, "--lines", "3:5", "--columns", ":4", "-o", target, "--json")
    assert code == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["wrote"] == {"scan": str(target), "picture": str(target.with_suffix(".png"))}
    assert target.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    expected = twin("sim-26id", 2, lines=slice(3, 5), columns=slice(4))
    found = read_scan(target)
    np.testing.assert_array_equal(found.frames[:], expected.frames)
    np.testing.assert_allclose(found.positions, expected.positions)
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_array_equal(found.probe, expected.probe)
    np.testing.assert_array_equal(found.object.image, expected.object.image)
    assert found.raster == (2, 4) and found.metadata["fingerprint"] == summary["fingerprint"]
    assert found.fingerprint() == expected.fingerprint()


def test_a_free_simulation_and_one_with_its_probe(tmp_path, capsys):
    free = ["--sample", "cells", "--beam", "gaussian", "--trajectory", "snake", "--points", 5, "--size", 32]
    assert run(*free, "--modes", "0.8,0.2", "--no-noise", "-o", tmp_path / "a.cxi", "--quiet") == 0
    assert capsys.readouterr().out == ""
    assert run("--beam", tmp_path / "a.cxi", "--points", 4, "--unknown-mask", "--dead-pixels", 2, "-o", tmp_path) == 0
    first, second = read_scan(tmp_path / "a.cxi"), read_scan(tmp_path / "labyrinth-0.cxi")
    assert first.frames.shape == (5, 32, 32) and np.asarray(first.frames[:]).dtype == np.float32
    np.testing.assert_allclose(second.probe, first.probe, rtol=1e-4, atol=1e-4)
    assert second.mask is None


def test_list_names_everything(capsys):
    assert run("--list", "--json") == 0
    assert {"twins", "samples", "beams", "trajectories"} <= json.loads(capsys.readouterr().out).keys()
    assert run("--list") == 0
    assert "sim-26id-wide" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--twin", "sim-99"], "sim-26id"),
        (["--twin", "sim-26id", "--size", 32], "size"),
        (["--twin", "sim-26id", "--lines", "7"], "FIRST:LAST"),
        (["--twin", "sim-26id", "--lines", "200:"], "no scan point"),
        (["--sample", "soup"], "labyrinth"),
        (["--modes", "a,b"], "--modes"),
        (["--beam", "missing.cxi"], "missing.cxi"),
        (["--counts", "nan"], "counts"),
    ],
)
def test_refusals_are_one_line_with_code_2(arguments, word, tmp_path, capsys):
    assert run(*arguments, "-o", tmp_path / "x.cxi") == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("error:") and word in message and "\n" not in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "default"),
    [
        *((name, str(getattr(Experiment(), name))) for name in ("sample", "beam", "trajectory", "dtype")),
        *((name, f"{getattr(Experiment(), name):,.0f}") for name in ("points", "step", "jitter", "size", "counts")),
        *((name, f"{getattr(Experiment(), name):.0f}") for name in ("background", "dead_pixels")),
        ("energy_kev", f"{Experiment().energy / 1e3:.0f}"),
        ("pixel_size_nm", f"{Experiment().pixel_size * 1e9:.0f}"),
    ],
)
def test_help_tells_the_defaults(option, default):
    """They stand in `Experiment`; options that were not given leave them alone."""
    (told,) = get_type_hints(simulate, include_extras=True)[option].__metadata__
    assert re.search(rf"(; |default |^|\(|, ){re.escape(default)}\b", told.help) or f"{default} (default)" in told.help
