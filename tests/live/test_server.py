"""The web server: read-only, for this machine alone unless a token is known, and never confused by another name."""

import http.client
import io
import json
import struct
import time
import zlib
from threading import Thread

import numpy as np
import pytest
import tifffile
from scripted import QUICK, Script, whole

from ptychow.engines import open_engine
from ptychow.errors import InputError, PtychoWError
from ptychow.formats.cxi import read_object
from ptychow.live.board import Seen, updates
from ptychow.live.pipeline import LiveScan
from ptychow.live.server import LiveServer
from ptychow.live.session import Session

sync = pytest.importorskip("websockets.sync.client")


@pytest.fixture(scope="module")
def finished_session(trained, scan):
    session = Session(
        Script(whole(scan)),
        None,
        trained.model,
        open_engine(trained.model, device="cpu"),
        QUICK,
        lambda live, result: None,
        name="scan/7 ü",
    )
    session.run()
    return session


def ask(port, path, headers=None, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, path, headers=headers or {})
    answer = connection.getresponse()
    return answer, answer.read()


def unpacked(message):
    (length,) = struct.unpack("<I", message[:4])
    return json.loads(message[4 : 4 + length]), zlib.decompress(message[4 + length :])


def test_the_page_and_its_parts_are_served_and_nothing_else(finished_session):
    with LiveServer(finished_session, port=0) as server:
        assert server.url == f"http://127.0.0.1:{server.port}/"
        answer, body = ask(server.port, "/")
        assert answer.status == 200 and b"PtychoW" in body
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        for name in ("page.js", "view.js", "page.css"):
            assert ask(server.port, f"/page/{name}")[0].status == 200
        assert ask(server.port, "/page/../server.py")[0].status == 404
        assert ask(server.port, "/page/%2e%2e/server.py")[0].status == 404
        for method in ("POST", "PUT", "DELETE"):
            assert ask(server.port, "/", method=method)[0].status == 405


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example:80"}, {"Host": "127.0.0.1"}, {"Origin": "http://evil.example"}]
)
def test_another_name_or_another_page_is_refused(finished_session, headers):
    with LiveServer(finished_session, port=0) as server:
        for path in ("/", "/object.cxi"):
            answer, said = ask(server.port, path, headers)
            assert answer.status == 421 and f"-L {server.port}:127.0.0.1:{server.port}" in said.decode()
        upgrade = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version": "13",
        }
        assert ask(server.port, "/live", {**upgrade, **headers})[0].status == 403


def test_with_a_token_only_who_knows_it_sees_anything(finished_session):
    with LiveServer(finished_session, port=0, token="secret7") as server:
        assert server.url.endswith("?token=secret7")
        for headers in (None, {"Cookie": f"ptychow-token-{server.port}=wrong"}):
            for path in ("/", "/object.tiff", "/page/page.js", "/?token=secret", "/?token="):
                assert ask(server.port, path, headers)[0].status == 401
        answer, _ = ask(server.port, "/?token=secret7")
        assert answer.status == 200
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        assert ask(server.port, "/page/page.js", {"Cookie": cookie.split(";")[0]})[0].status == 200
        with pytest.raises(Exception, match=r"403|1008"):
            sync.connect(f"ws://127.0.0.1:{server.port}/live").recv()


def test_any_other_address_needs_a_token(finished_session):
    with LiveServer(finished_session, "0.0.0.0", port=0) as server:
        assert len(server.url.partition("token=")[2]) == 32
        assert ask(server.port, "/")[0].status == 401
    for address in ("example.org", "", "300.1.1.1"):
        with pytest.raises(InputError, match="not an address"):
            LiveServer(finished_session, address)
    with pytest.raises(InputError, match="not a token"):
        LiveServer(finished_session, token="a b; c")
    with (
        LiveServer(finished_session, port=0) as server,
        pytest.raises(PtychoWError, match=f"cannot listen on 127.0.0.1 port {server.port}"),
    ):
        LiveServer(finished_session, port=server.port)


def test_what_is_saved_is_the_result(finished_session, tmp_path):
    result = finished_session.result
    with LiveServer(finished_session, port=0) as server:
        answer, body = ask(server.port, "/object.tiff")
        amplitude, phase, coverage = tifffile.imread(io.BytesIO(body))
        np.testing.assert_allclose(amplitude, np.abs(result.image.image), rtol=1e-6)
        np.testing.assert_allclose(phase, np.angle(result.image.image), atol=1e-6)
        np.testing.assert_allclose(coverage, result.coverage)
        assert answer.headers["Content-Disposition"] == 'attachment; filename="scan_7__.tiff"'
        _, body = ask(server.port, "/object.cxi")
    path = tmp_path / "object.cxi"
    path.write_bytes(body)
    np.testing.assert_array_equal(read_object(path).image, result.image.image)


def test_a_result_that_cannot_be_saved_yet_has_its_own_name_while_the_next_scan_runs(
    finished_session, trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(finished_session, "scan", LiveScan(trained.model, None, QUICK, tmp_path, "scan_2"))
    monkeypatch.setattr(finished_session, "_state", "unsaved")
    with LiveServer(finished_session, port=0) as server:
        answer, _ = ask(server.port, "/object.tiff")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="scan_7__.tiff"'


def test_a_full_disk_is_told_by_the_button(finished_session, monkeypatch):
    def full(*_):
        raise PtychoWError("object.cxi: cannot be written (No space left on device)")

    monkeypatch.setattr("ptychow.live.board.cxi", full)
    with LiveServer(finished_session, port=0) as server:
        answer, body = ask(server.port, "/object.cxi")
    assert answer.status == 507 and b"No space left" in body


def test_before_the_first_frame_there_is_nothing_to_save(trained, scan):
    session = Session(Script([]), None, trained.model, open_engine(trained.model), QUICK, lambda *_: None)
    with LiveServer(session, port=0) as server:
        assert ask(server.port, "/object.cxi")[0].status == 404
        with sync.connect(f"ws://127.0.0.1:{server.port}/live") as socket:
            assert json.loads(socket.recv())["state"] == "waiting"


def test_two_browsers_see_the_mosaic_and_one_that_goes_does_no_harm(finished_session):
    with LiveServer(finished_session, port=0) as server:
        address = f"ws://127.0.0.1:{server.port}/live"
        with sync.connect(address) as first, sync.connect(address) as second:
            for socket in (first, second):
                assert json.loads(socket.recv())["counts"]["stitched"] == 80
                header, body = unpacked(socket.recv())
                assert header["kind"] == "tiles" and len(body) == len(header["places"]) * 3 * 2 * 64 * 64
            first.socket.close()  # without a word
            time.sleep(0.5)
            assert isinstance(second.recv(), bytes | str)
        with sync.connect(address) as again:
            assert json.loads(again.recv())["state"] == "done"


def test_a_browser_cannot_say_much(finished_session):
    with LiveServer(finished_session, port=0) as server, sync.connect(f"ws://127.0.0.1:{server.port}/live") as socket:
        socket.send("x" * 100_000)
        with pytest.raises(Exception, match=r"1009|too big|closed"):
            for _ in range(100):
                socket.recv()


def test_the_number_of_browsers_is_bounded(finished_session, monkeypatch):
    monkeypatch.setattr("ptychow.live.server.MOST_BROWSERS", 2)
    with LiveServer(finished_session, port=0) as server:
        address = f"ws://127.0.0.1:{server.port}/live"
        with sync.connect(address), sync.connect(address), pytest.raises(Exception, match=r"403|1013"):
            sync.connect(address).recv()


def test_tiles_are_the_mosaic_to_what_their_steps_allow(finished_session):
    seen, tiles = Seen(), {}
    for _ in range(3):
        for message in updates(finished_session, seen):
            if isinstance(message, bytes):
                header, body = unpacked(message)
                if header["kind"] == "tiles":
                    planes = np.frombuffer(body, np.uint16).reshape(len(header["places"]), 3, 64, 64)
                    tiles.update({tuple(place): plane for place, plane in zip(header["places"], planes, strict=True)})
                    step = header["amplitude_step"]
    image, coverage = finished_session.result.image, finished_session.result.coverage
    for (row, column), (amplitude, phase, light) in tiles.items():
        for (y, x), value in np.ndenumerate(light):
            at = int(row * 64 + y - image.origin[0]), int(column * 64 + x - image.origin[1])
            if value and coverage[at] > 0.01:
                assert abs(amplitude[y, x] * step - abs(image.image[at])) <= step
                turned = np.exp(1j * np.int16(phase[y, x]) * np.pi / 32767)
                assert abs(np.angle(image.image[at] / turned)) < 2e-4
                break
    assert len(tiles) >= 3
    # Nothing has changed since: nothing is sent but how things are.
    assert [type(message) for message in updates(finished_session, seen)] == [str]


def test_a_browser_that_lags_gets_the_newest_not_all(trained, scan, monkeypatch):
    monkeypatch.setattr("ptychow.live.board.MOST_TILES", 1)
    session = Session(Script(whole(scan)), None, trained.model, open_engine(trained.model), QUICK, lambda *_: None)
    thread = Thread(target=session.run)
    thread.start()
    thread.join()
    seen, places = Seen(), []
    for _ in range(20):
        for message in updates(session, seen):
            if isinstance(message, bytes) and unpacked(message)[0]["kind"] == "tiles":
                places += [tuple(place) for place in unpacked(message)[0]["places"]]
    assert len(places) == len(set(places)) > 2


def test_the_page_answers_under_the_address_that_is_shown(finished_session):
    with LiveServer(finished_session, "127.0.0.2", port=0) as server:
        host = f"127.0.0.2:{server.port}"
        assert server.url == f"http://{host}/"
        connection = http.client.HTTPConnection("127.0.0.2", server.port, timeout=5)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
