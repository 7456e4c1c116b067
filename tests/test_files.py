import json
import os
from pathlib import Path

import numpy as np
import pytest

from ptychow.errors import PtychoWError
from ptychow.files import atomic_path, cache_folder, require_writable, to_json, write_json


def test_a_file_appears_whole_with_ordinary_permissions_and_its_folder(tmp_path):
    target = tmp_path / "new" / "folder" / "a.json"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent and temporary.suffix == ".json"
        temporary.write_text("1")
        assert not target.exists()
    umask = os.umask(0)
    os.umask(umask)
    assert target.read_text() == "1" and target.stat().st_mode & 0o777 == 0o666 & ~umask
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_failure_leaves_what_was_there(failure, tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    expected = PtychoWError if isinstance(failure, OSError) else failure
    with pytest.raises(expected), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise failure
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_what_the_system_refuses_names_the_file(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(PtychoWError, match=r"file/a.json: cannot be written \(.+\)"):
        write_json(tmp_path / "file" / "a.json", {})

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(PtychoWError, match=r"a.json: cannot be written \(No space left on device\)"):
        write_json(tmp_path / "a.json", {})
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_what_surely_cannot_be_written_is_refused_beforehand(tmp_path):
    (tmp_path / "file").write_text("")
    require_writable(tmp_path / "not" / "yet" / "there.json")
    require_writable(tmp_path / "file")
    with pytest.raises(PtychoWError, match="file is not a folder"):
        require_writable(tmp_path / "file" / "a.json")
    with pytest.raises(PtychoWError, match="it is a folder"):
        require_writable(tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused_beforehand(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PtychoWError, match="no permission to write"):
        require_writable(tmp_path / "a.json")


def test_json_takes_what_numpy_gives(tmp_path):
    content = {"a": np.float32(0.5), 3: np.arange(2), "nan": float("nan"), "path": tmp_path, "deep": [(np.inf, True)]}
    plain = json.loads(to_json(content))
    assert plain == {"a": 0.5, "3": [0, 1], "nan": None, "path": str(tmp_path), "deep": [[None, True]]}
    write_json(tmp_path / "a.json", content)
    assert json.loads((tmp_path / "a.json").read_text()) == plain


def test_the_cache_follows_the_system(monkeypatch):
    monkeypatch.delenv("PTYCHOW_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/ptychow")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/ptychow")
