"""`ptychow benchmark` finds the scripts, hands their options on, and ends as they end."""

from pathlib import Path

import pytest

from ptychow.cli import benchmark as command

SCRIPTS = {path.stem for path in command.FOLDER.glob("*.py") if command._is_script(path)}


def test_lists_every_script_with_its_first_line(ptychow):
    code, shown, _ = ptychow("benchmark", "--json")
    assert code == 0
    for name in SCRIPTS:
        assert f'"{name}"' in shown
    assert "common" not in SCRIPTS and "real_scan" in SCRIPTS


def test_hands_options_on_and_returns_the_exit_code(ptychow, monkeypatch, tmp_path):
    given = tmp_path / "given.txt"
    script = (
        "import sys\nfrom pathlib import Path\n"
        f'if __name__ == "__main__":\n    Path({str(given)!r}).write_text(" ".join(sys.argv[1:]))\n    sys.exit(3)\n'
    )
    (tmp_path / "trial.py").write_text('"""A trial."""\n' + script)
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    code, _, _ = ptychow("benchmark", "trial", "--seeds", "3", "--resume", "x")
    assert code == 3
    assert given.read_text() == "--seeds 3 --resume x"


@pytest.mark.parametrize("folder", ["empty", "full"])
def test_unknown_names_are_refused_with_the_known_ones(folder, ptychow, monkeypatch):
    if folder == "empty":
        monkeypatch.setattr(command, "FOLDER", Path("nowhere"))
    code, _, complaint = ptychow("benchmark", "nothing")
    assert code == 2
    assert ("editable" if folder == "empty" else "real_scan") in complaint
