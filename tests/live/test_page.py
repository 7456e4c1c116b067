"""The page in a real browser: what it shows is what lies in memory, and its controls do what they say."""

import shutil
import time
from threading import Event, Thread

import numpy as np
import pytest
from scripted import QUICK, Script, whole

from ptychow.engines import open_engine
from ptychow.live.server import LiveServer
from ptychow.live.session import Session

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def live(trained, scan):
    """A session that stands still before its last frames, what lets it go on, and its server."""
    go_on = Event()
    steps = whole(scan)
    steps.insert(-2, lambda: go_on.wait(60))
    session = Session(
        Script(steps),
        None,
        trained.model,
        open_engine(trained.model, device="cpu"),
        QUICK,
        lambda live_scan, result: None,
        name="small scan",
    )
    with LiveServer(session, port=0) as server:
        thread = Thread(target=session.run)
        thread.start()
        yield session, go_on, server
        go_on.set()
        thread.join()


def wait_until(page, condition, seconds=20):
    """Playwright's own wait needs eval, which the page's security policy forbids."""
    until = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < until, condition
        page.wait_for_timeout(100)


def open_page(browser, server, **options):
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 800}, **options})
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(server.url)
    wait_until(page, "window.ptychow && ptychow.data.tiles.size > 0")
    page.complaints = complaints
    return page


def sheet(page, layer):
    """RGBA (rows, columns, 4) of a view's picture, and the object pixel of its corner."""
    width, height, origin, pixels = page.evaluate(
        """layer => {
            const view = ptychow.views[layer];
            const { width, height } = view.sheet;
            const data = view.sheet.getContext("2d").getImageData(0, 0, width, height).data;
            return [width, height, view.origin, Array.from(data)];
        }""",
        layer,
    )
    return np.array(pixels, np.uint8).reshape(height, width, 4), origin


def settled(page):
    """Wait until limits have been measured after the last change."""
    page.wait_for_timeout(1600)


def test_the_picture_is_the_mosaic_in_memory(live, browser):
    session, go_on, server = live
    page = open_page(browser, server)
    wait_until(page, "ptychow.data.state.state === 'scanning' || ptychow.data.state.state === 'silent'")
    assert "preview" in page.inner_text("#state")
    go_on.set()
    wait_until(page, "ptychow.data.state.state === 'done'")
    settled(page)
    assert page.inner_text("#state") == "done" and page.inner_text("#stitched") == "80"
    result = session.result
    for layer, values in (
        ("amplitude", np.abs(result.image.image)),
        ("phase", np.angle(result.image.image)),
        ("coverage", result.coverage),
    ):
        pixels, origin = sheet(page, layer)
        row, column = (int(here - there) for here, there in zip(result.image.origin, origin, strict=True))
        rows, columns = values.shape
        shown = pixels[row : row + rows, column : column + columns]
        low, high, mean, map_name = page.evaluate(
            "layer => { const v = ptychow.views[layer]; return [v.low, v.high, ptychow.options.meanPhase, v.map]; }",
            layer,
        )
        table = page.evaluate("async name => Array.from((await import('/page/colours.js')).table(name))", map_name)
        expected = values if layer != "phase" else np.angle(np.exp(1j * (values - mean)))
        index = np.clip(np.rint((expected - low) / (high - low) * 255), 0, 255).astype(int)
        lit = result.coverage > 0.15 * result.coverage.max()
        colours = np.array(table, np.uint32)[:, None] >> np.array([0, 8, 16], np.uint32) & 255
        # Values come in steps of a 65,000th: a colour may be its neighbour.
        nearest = np.min(
            [
                np.abs(colours[np.clip(index + step, 0, 255)].astype(int) - shown[..., :3]).max(axis=-1)
                for step in (-1, 0, 1)
            ],
            axis=0,
        )
        assert (nearest[lit] <= 1).all(), layer
        assert (shown[lit][:, 3] == 255).all() and lit.sum() > 1000
    assert page.complaints == []
    page.close()


def test_controls_do_what_they_say(live, browser):
    _, go_on, server = live
    go_on.set()
    page = open_page(browser, server)
    settled(page)
    assert page.locator(".view").count() == 4
    page.click("[data-show=phase]")
    assert page.locator(".view").count() == 1
    before, _ = sheet(page, "phase")
    page.select_option("#colours", "magma")
    page.wait_for_timeout(200)
    recoloured, _ = sheet(page, "phase")
    assert (recoloured != before).any()
    page.locator("#low").evaluate("slider => { slider.value = slider.max; slider.dispatchEvent(new Event('input')); }")
    page.wait_for_timeout(200)
    assert not page.is_checked("#auto")
    darkest, _ = sheet(page, "phase")
    opaque = darkest[..., 3] == 255
    assert darkest[opaque][:, :3].sum() < 0.5 * recoloured[opaque][:, :3].sum()
    page.check("#auto")
    page.check("#unwrap")
    page.wait_for_timeout(200)
    wrapped, unwrapped = page.evaluate(
        """() => { const tile = [...ptychow.data.tiles.values()][0]; return [[...tile.phase], [...tile.unwrapped]]; }"""
    )
    turns = (np.array(unwrapped) - np.array(wrapped)) / (2 * np.pi)
    np.testing.assert_allclose(turns, np.rint(turns), atol=1e-5)
    zoom = page.evaluate("ptychow.camera.zoom")
    page.click("#in")
    assert page.evaluate("ptychow.camera.zoom") == pytest.approx(1.5 * zoom)
    page.click("#fit")
    page.wait_for_timeout(200)
    assert page.evaluate("ptychow.camera.zoom") == pytest.approx(zoom)
    page.check("#path")
    with page.expect_download() as download:
        page.click("#save-png")
    assert download.value.suggested_filename == "small scan_phase.png"
    with page.expect_download() as download:
        page.click("text=TIFF")
    assert download.value.suggested_filename == "small_scan.tiff"
    assert page.complaints == []
    page.close()


def test_a_line_profile_has_lengths(live, browser):
    session, go_on, server = live
    go_on.set()
    page = open_page(browser, server)
    page.click("[data-show=amplitude]")
    settled(page)
    page.click("#draw")
    box = page.locator(".view canvas").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(middle[0] - 40, middle[1])
    page.mouse.down()
    page.mouse.move(middle[0] + 40, middle[1], steps=4)
    page.mouse.up()
    page.wait_for_timeout(300)
    pixels = 80 / page.evaluate("ptychow.camera.zoom")
    assert page.is_visible("#profile")
    length, unit = page.inner_text("#profile-of").split(", ")[1].split()
    assert unit == "nm" and float(length) == pytest.approx(pixels * 10, rel=0.02)  # 10 nm pixels
    # The values along the line are those of the object.
    [y, x], value = page.evaluate(
        """() => {
            const [from, to] = ptychow.options.line;
            const middle = [(from[0] + to[0]) / 2, (from[1] + to[1]) / 2];
            return [middle, ptychow.views.amplitude.value(...middle)];
        }"""
    )
    image = session.result.image
    row, column = int(np.floor(y) - image.origin[0]), int(np.floor(x) - image.origin[1])
    assert value == pytest.approx(abs(image.image[row, column]), abs=1e-3)
    page.close()


def test_the_page_comes_back_after_the_server_was_gone(trained, scan, browser):
    session = Session(
        Script(whole(scan)), None, trained.model, open_engine(trained.model, device="cpu"), QUICK, lambda *_: None
    )
    session.run()
    with LiveServer(session, port=0) as server:
        page, port = open_page(browser, server), server.port
        wait_until(page, "ptychow.data.tiles.size > 0")
    # A scan that was over stays so.
    wait_until(page, "ptychow.data.state.message.endsWith('ptychow has ended')")
    assert page.inner_text("#state") == "done"
    assert page.evaluate("ptychow.data.tiles.size") > 0  # the picture stays
    time.sleep(0.3)
    with LiveServer(session, port=port):
        wait_until(page, "!ptychow.data.state.message.includes('ended') && ptychow.data.tiles.size > 0")
        session._state = "scanning"
        wait_until(page, "ptychow.data.state.state === 'scanning'")
    wait_until(page, "ptychow.data.state.state === 'disconnected'")
    assert page.inner_text("#state") == "disconnected"
    page.close()


def test_a_message_that_cannot_be_read_is_not_the_last(live, browser):
    session, go_on, server = live
    page = open_page(browser, server)
    wait_until(page, "ptychow.data.tiles.size > 0")
    page.evaluate(
        """() => { const take = ptychow.data.takeState;
                   ptychow.data.takeState = () => { ptychow.data.takeState = take; throw new Error("broken"); }; }"""
    )
    go_on.set()
    wait_until(page, "ptychow.data.state.state === 'done'")
    until = time.monotonic() + 20
    while not any("broken" in text for text in page.complaints):
        assert time.monotonic() < until, page.complaints
        page.wait_for_timeout(100)
    # What comes after it is taken in.
    session.message = "heard"
    wait_until(page, "ptychow.data.state.message === 'heard'")
    page.close()


def test_keys_move_the_picture(live, browser):
    _, go_on, server = live
    go_on.set()
    page = open_page(browser, server)
    settled(page)
    page.locator("canvas").first.focus()
    y, x, zoom = page.evaluate("[ptychow.camera.y, ptychow.camera.x, ptychow.camera.zoom]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("+")
    moved = page.evaluate("[ptychow.camera.y, ptychow.camera.x, ptychow.camera.zoom]")
    assert moved[0] > y and moved[1] < x and moved[2] > zoom
    page.keyboard.press("0")
    page.wait_for_timeout(200)
    assert page.evaluate("ptychow.camera.zoom") == pytest.approx(zoom)
    page.close()


def test_the_page_fits_a_phone(live, browser):
    _, go_on, server = live
    go_on.set()
    page = open_page(browser, server, viewport={"width": 390, "height": 844}, has_touch=True, device_scale_factor=2)
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator(".view").count() == 1
    picture, state = page.locator(".view").bounding_box(), page.locator("#state").bounding_box()
    assert state["y"] < 100 and picture["y"] < 450 and picture["height"] > 300
    page.close()
