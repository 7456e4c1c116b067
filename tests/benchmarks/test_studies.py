import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import studies
import study_parts
from ptychow.optics.samples import SAMPLES
from ptychow.optics.twins import twin
from ptychow.scan import ObjectImage


def test_count_limits_are_where_the_error_doubles():
    factors = [0.01, 0.1, 1, 10]
    # log-linear: from 0.1 at x1 to 0.4 at x0.1, the error doubles half way of the logarithms.
    assert study_parts.count_limits(factors, [0.9, 0.4, 0.1, 0.15]) == pytest.approx((10**-0.5, 10))


@given(st.permutations(range(5)), st.floats(0.01, 2))
def test_count_limits_depend_neither_on_order_nor_on_scale(order, scale):
    factors, errors = np.array([0.1, 0.5, 1, 2, 8]), np.array([0.9, 0.12, 0.1, 0.3, 0.2])
    expected = study_parts.count_limits(factors, errors)
    found = study_parts.count_limits(factors[list(order)], scale * errors[list(order)])
    assert found == pytest.approx(expected)
    assert 0.1 < expected[0] < 0.5 and 1 < expected[1] < 2


def test_the_truth_has_no_error_wherever_its_array_begins():
    scan = twin("sim-26id", 0, lines=slice(0, 8, 4), columns=slice(0, 8, 4), workers=1)
    truth = study_parts.Truth(scan)
    whole = scan.object
    part = ObjectImage(whole.image[4:120, 6:120], (whole.origin[0] + 4, whole.origin[1] + 6), "part")
    assert truth.error(whole, study_parts.NETWORK) == pytest.approx(0, abs=1e-6)
    assert truth.error(part, study_parts.NETWORK) == pytest.approx(0, abs=1e-6)
    flat = ObjectImage(np.ones_like(whole.image), whole.origin, "flat")
    assert truth.error(flat, study_parts.NETWORK) == pytest.approx(1, abs=0.1)


FOUND = {
    "dose": {
        "counts": [2e4, 2e6],
        "factors": [0.01, 1.0],
        "unexplained": {"sqrt": [0.4, 0.1], "raw": [0.9, 0.2]},
        "limits": {"sqrt": [0.1, 1.0], "raw": [0.3, 1.0]},
    },
    "networks": {"points": {"w3": [[3.0, 0.1]]}, "frames": 2400, "lsqml": {"epochs": 2, "seconds": 40.0}},
    "engines": {
        "points": {"lsqml": [[9.0, 0.2], [20.0, 0.01]], "epie": [[9.0, 0.2], [20.0, 0.19]]},
        "epochs": [1, 2],
        "frames": 2400,
    },
    "overlap": {"rows": [{"step_px": 3, "frames": 1024, "w3": 0.1, "lsqml": 0.01, "lsqml_epochs": 40}]},
    "samples": {"table": {name: dict.fromkeys(SAMPLES, 0.5) for name in SAMPLES}},
}


def where(name):
    return {"machine": {"cpu": "a slow one" if name == "dose" else "a quick one", "threads": 1}}


def test_the_page_shows_what_there_is_and_says_what_is_missing(tmp_path, monkeypatch):
    for name, found in FOUND.items():
        (tmp_path / "studies").mkdir(exist_ok=True)
        (tmp_path / "studies" / f"{name}.json").write_text(json.dumps({**found, **where(name)}))
    monkeypatch.setattr("sys.argv", ["studies.py", "--report-only", "--output", str(tmp_path)])
    studies.main()
    page = (tmp_path / "studies.md").read_text()
    assert (
        "x0.1 to x1" in page
        and "off the error of LSQML." in page
        and "(times 2.00)" in page
        and "| 18 |" not in page
        and "| 40 |" in page
        and page.count("Not measured yet.") == 1
    )
    # Engines' seconds in those of the networks' machine: LSQML's 20 are 40 there.
    assert "(times 2.00)" in page and "| 40 |" in page
    assert "dose on a slow one, 1 thread; networks, engines, overlap, samples on a quick one, 1 thread." in page
    for picture in ("dose", "engines", "overlap"):
        assert f"studies/{picture}.png" in page and (tmp_path / "studies" / f"{picture}.png").exists()


def test_a_finished_part_is_not_measured_again(tmp_path, monkeypatch):
    def measure(output):
        calls.append(output)
        return FOUND["dose"]

    calls: list = []
    monkeypatch.setitem(studies.PARTS, "dose", measure)
    monkeypatch.setattr("sys.argv", ["studies.py", "--only", "dose", "--output", str(tmp_path)])
    studies.main()
    studies.main()
    assert calls == [tmp_path]
