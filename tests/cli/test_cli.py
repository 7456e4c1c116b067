"""What all commands have in common: help, exit codes, one JSON object, silence, and a light start."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ptychow.cli import COMMANDS, main
from ptychow.cli.common import Report, format_number, named_after, output_path, parse_mapping
from ptychow.errors import InputError, PtychoWError

START = "from ptychow.cli import main; main()"
PRINTING = ("networks", "benchmark", "doctor")  # write no file themselves
HEAVY = ("torch", "matplotlib", "accelerate", "ptychi", "skimage", "h5py")


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", START, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_its_options(command, ptychow):
    code, shown, complaint = ptychow(command, "--help")
    assert code == 0 and not complaint
    assert f"Usage: ptychow {command}" in shown and "--json" in shown and "--quiet" in shown
    if command not in PRINTING:
        assert "--output" in shown


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_the_commands(arguments, ptychow):
    code, shown, _ = ptychow(*arguments)
    assert code == 0 and all(command in shown for command in COMMANDS)


def test_version(ptychow):
    from ptychow import __version__

    assert ptychow("--version") == (0, f"ptychow {__version__}\n", "")


@pytest.mark.parametrize("script", ["import ptychow", START])
def test_starting_is_light(script):
    loaded = f"import sys, json\ntry:\n    {script}\nexcept SystemExit: pass\n"
    loaded += f"sys.stderr.write(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", loaded, "--help"], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr) == []


def test_help_comes_in_under_a_second():
    def seconds():
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", START, "--help"], capture_output=True, check=True)
        return time.perf_counter() - began

    assert min(seconds() for _ in range(3)) < 1


def test_every_name_of_the_package_can_be_had():
    import ptychow

    assert all(getattr(ptychow, name) is not None for name in ptychow.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = ptychow.nonsense


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["paint"], "paint"),
        (["train"], "FILE"),
        (["inspect", "a", "b"], "b"),
        (["inspect", "--speed", "a"], "--speed"),
        (["train", "a.cxi", "--epochs"], "--epochs"),
        (["train", "a.cxi", "--epochs", "many"], "many|epochs"),
        (["train", "a.cxi", "--validation", "-0.1"], "--validation"),
        (["train", "a.cxi", "--holdout", "1.5"], "--holdout"),
        (["train", "a.cxi", "--seed", "-1"], "--seed"),
        (["reconstruct", "a.cxi"], "--model"),
        (["reconstruct", "a.cxi", "--model", "m", "--batch-size", "0"], "--batch-size"),
        (["networks", "--size", "-16"], "--size"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(arguments, words, ptychow):
    code, shown, complaint = ptychow(*arguments)
    assert (code, shown) == (2, "")
    assert complaint.startswith("error: ") and complaint.count("\n") == 1
    assert any(word in complaint for word in words.split("|"))


def test_a_reader_that_leaves_is_no_error(tmp_path):
    """`ptychow --help | head -1`"""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", START, "networks"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 1 and done.stderr == ""


def test_what_has_no_better_name_is_still_one_line(monkeypatch, ptychow, scan_file):
    for failure, words in (
        (OSError(5, "Input/output error", "disk"), "disk: Input/output error"),
        (MemoryError("Unable to allocate 3 TiB"), "out of memory (Unable to allocate 3 TiB)"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory (CUDA out of memory"),
        (KeyboardInterrupt(), "interrupted"),
        (PtychoWError("two\nlines"), "two lines"),
    ):

        def fail(*arguments, failure=failure, **options):
            raise failure

        monkeypatch.setattr("ptychow.inspection.inspect_scan", fail)
        code, _, complaint = ptychow("inspect", scan_file)
        assert code == 1 and complaint == complaint.splitlines()[0] + "\n" and words in complaint


def test_a_fault_of_ours_is_not_dressed_up(monkeypatch, scan_file):
    def fail(*arguments, **options):
        raise RuntimeError("a bug")

    monkeypatch.setattr("ptychow.inspection.inspect_scan", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["inspect", str(scan_file)])


def test_an_interrupted_process_says_so_in_one_line(tmp_path):
    """A real SIGINT, sent while a real process simulates."""
    target = tmp_path / "big.cxi"
    process = start("simulate", "--points", 40_000, "--size", 64, "--output", target)
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    shown, complaint = process.communicate(timeout=60)
    assert process.returncode == 1 and complaint == "error: interrupted\n" and shown == ""
    assert not list(tmp_path.iterdir())


def test_reports_speak_to_people_or_to_machines_or_not_at_all(capsys):
    for report, text in (
        (Report(), "line\n"),
        (Report(as_json=True), '{"a": 1, "wrote": {}}\n'),
        (Report(quiet=True), ""),
    ):
        report.line("line")
        report.finish({"a": 1})
        with report.progress("Working", 3) as advance:
            advance()
            advance(2, note="done")
        report.warn("careful")
        shown = capsys.readouterr()
        assert json.loads(shown.out) == json.loads(text) if report.as_json else shown.out == text
        assert shown.err == "warning: careful\n"


def test_long_work_says_in_a_log_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr("ptychow.cli.common.LINE_SECONDS", 0.0)
    with Report().progress("Working", 4) as advance:
        advance(1, note="loss 0.1")
    shown = capsys.readouterr()
    assert (
        shown.err.startswith("Working: 1 of 4, about ") and shown.err.endswith(" s left, loss 0.1\n") and not shown.out
    )
    for silent in (Report(quiet=True), Report(as_json=True)):
        with silent.progress("Working") as advance:
            advance()
        assert capsys.readouterr() == ("", "")


def test_progress_is_drawn_on_a_terminal_only(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Report().progress("Working", 3) as advance:
        advance(3, note="done")
    shown = capsys.readouterr()
    assert "Working" in shown.err and "done" in shown.err and shown.out == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "True"),
        (1234567, "1,234,567"),
        (0.000123456, "0.0001235"),
        (float("nan"), "nan"),
        ("a", "a"),
    ],
)
def test_numbers_for_people(value, text):
    assert format_number(value) == text


def test_where_things_are_written(tmp_path):
    source = tmp_path / "scan.cxi"
    assert output_path(None, source, "_w3.cxi") == tmp_path / "scan_w3.cxi"
    assert output_path(tmp_path, source, "_w3.cxi") == tmp_path / "scan_w3.cxi"
    assert output_path(tmp_path / "new" / "a.h5", source, "_w3.cxi") == tmp_path / "new" / "a.h5"
    for wrong, ending, words in (
        (source, "_w3.cxi", "would overwrite the input"),
        (tmp_path / "." / "scan.cxi", "_w3.cxi", "would overwrite the input"),
        (tmp_path / "model", "_w3.cxi", "would overwrite the input"),
        (tmp_path / "a.png", "_w3.cxi", "names a picture"),
    ):
        with pytest.raises(InputError, match=words):
            output_path(wrong, source, ending, tmp_path / "model")
    assert output_path(tmp_path / "a.png", source, "_inspection.png") == tmp_path / "a.png"


def test_mappings(tmp_path):
    (tmp_path / "m.toml").write_text('frames = "/a"\nstep_px = 3\n')
    assert parse_mapping(None) is None
    assert parse_mapping([str(tmp_path / "m.toml"), "frames = /b"]) == {"frames": "/b", "step_px": "3"}
    (tmp_path / "m.toml").write_text("frames: /a")
    for entry in ("nonsense", str(tmp_path / "m.toml")):
        with pytest.raises(InputError, match="TOML file"):
            parse_mapping([entry])


@pytest.mark.parametrize(
    ("model", "name"), [("w3", "scan_w3.cxi"), ("scan_w3", "scan_w3.cxi"), ("scanner", "scan_scanner.cxi")]
)
def test_results_are_named_after_scan_and_model(model, name, tmp_path):
    scan = tmp_path / "scan.h5"
    assert output_path(None, scan, named_after(scan, model, ".cxi")) == tmp_path / name


def test_nothing_written_is_forgotten_where_several_scans_write_alike():
    report = Report(quiet=True)
    for name in ("a.cxi", "b.cxi", "c.cxi"):
        report.wrote("object", Path(name))
    assert report.written == {"object": "a.cxi", "object 2": "b.cxi", "object 3": "c.cxi"}
