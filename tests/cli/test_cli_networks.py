"""`ptychow networks`, called as from the shell."""

import json

import pytest

from ptychow.cli import main
from ptychow.networks import NETWORKS


def run(*arguments):
    with pytest.raises(SystemExit) as left:
        main(["networks", *arguments])
    return int(left.value.code or 0)


def test_the_table_shows_our_numbers_beside_the_paper_s_and_says_whose_they_are(capsys):
    assert run() == 0
    printed = capsys.readouterr().out
    for words in ("1,780,007", "1,780", "60.99", "60.77", "103,016", "reconstructed from the paper's text and Table 5"):
        assert words in printed


def test_json(capsys):
    assert run("--json", "--size", "128") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["networks"].keys() == NETWORKS.keys()
    assert summary["networks"]["w3"]["parameters"] == 103_016
    assert summary["networks"]["ptychonn"]["macs_per_pattern"] == 4 * 402_259_968


def test_quiet_prints_nothing(capsys):
    assert run("--quiet") == 0
    assert capsys.readouterr().out == ""


def test_a_size_no_network_takes_is_refused(capsys):
    assert run("--size", "100") == 2
    assert "found 100 x 100, expected multiples of 8" in capsys.readouterr().err
