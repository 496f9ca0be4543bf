"""The page of the service in Chromium, with results that were made before."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browsers import chromium, sideways, violations
from detect_json import CALIBRATION
from made_results import photograph, video
from page_fakes import CannedScorer, prepare

uvicorn = pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from deepregions.service.app import create_app  # noqa: E402
from deepregions.service.keys import add_key  # noqa: E402
from deepregions.service.settings import ServiceSettings  # noqa: E402

pytestmark = pytest.mark.slow
PHOTOGRAPH = photograph(calibration=CALIBRATION)
LARGEST = 3_000_000  # bytes of a file
VIDEO = video(calibration=CALIBRATION, warnings=("The landmarks are others than in training.",))


@contextmanager
def served(data: Path, **settings: Any) -> Iterator[str]:
    """A service; yields its address."""
    prepare(data, ".jpg", PHOTOGRAPH)
    prepare(data, ".mp4", VIDEO)
    app = create_app(ServiceSettings(data, make_scorer=CannedScorer, **settings))
    config = uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not (server.started and app.state.service.supervisor.ready):
            assert thread.is_alive()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("service"), max_size=LARGEST) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page as somebody who never was there; at the end nothing must have failed."""
    contexts, faults = [], []

    def visit(url: str = address, **options: Any) -> Any:
        options = {"viewport": {"width": 1280, "height": 900}, **options}
        contexts.append(browser.new_context(**options))
        contexts[-1].set_default_timeout(60_000)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(url)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not faults


def upload(page: Any, **contents: bytes) -> None:
    files = [
        {"name": name.replace("_", "."), "mimeType": "", "buffer": content}
        for name, content in contents.items()
    ]
    page.set_input_files("#files", files)


def entry(page: Any, name: str) -> Any:
    return page.locator(".entry").filter(has=page.get_by_role("heading", name=name, exact=True))


def wait_until(page: Any, script: str) -> None:
    page.wait_for_function(script, timeout=60_000)


def test_a_photograph_is_answered(opened: Callable[..., Any]) -> None:
    page = opened()
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    upload(page, me_jpg=b"photograph")
    answer = PHOTOGRAPH.answer
    for said in (answer.conclusion, answer.ratio, answer.holds_for, answer.judged, answer.score):
        entry(page, "me.jpg").get_by_text(said).first.wait_for()
    assert answer.conclusion in page.locator("#news").inner_text()
    page.get_by_role("button", name="Copy JSON of me.jpg").click()
    wait_until(page, "window.copied")
    copied = json.loads(page.evaluate("copied"))
    assert (copied["input"], copied["answer"]["ratio"]) == ("me.jpg", answer.ratio)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save report of me.jpg").click()
    saved = download.value.path().read_text()
    assert download.value.suggested_filename == "me.jpg.html"
    assert "<bdi>me.jpg</bdi>" in saved
    page.get_by_role("button", name="Show the report").click()
    report = page.frame_locator(".report iframe")
    report.get_by_role("heading", name=answer.conclusion).wait_for()
    panel = report.locator(".verdict").evaluate("e => getComputedStyle(e).display")
    assert panel == "grid", "the report has no styles"
    frame = "document.querySelector('iframe').contentWindow"
    page.evaluate(f"{frame}.print = () => {{ window.printed = true; }}")
    page.get_by_role("button", name="Print me.jpg").click()
    wait_until(page, "window.printed")
    page.reload()
    entry(page, "me.jpg").get_by_text(answer.conclusion).first.wait_for()
    page.get_by_role("button", name="Remove me.jpg").click()
    page.get_by_text("There are none yet.").wait_for()
    page.reload()
    page.get_by_text("There are none yet.").wait_for()


def test_a_video_shows_its_frames_and_people(opened: Callable[..., Any]) -> None:
    page = opened()
    upload(page, clip_mp4=b"video", me_jpg=b"photograph")
    clip = entry(page, "clip.mp4")
    clip.get_by_text(re.compile(r"Being looked at: [1-9] of 10 frames\.")).wait_for()
    assert 0 < clip.locator("progress").evaluate("bar => bar.value") < 1
    clip.get_by_text(VIDEO.answer.conclusion).first.wait_for()
    clip.get_by_text("Limits, people, report").click()
    rows = clip.locator("tbody tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == ["1", "2"]
    assert "The landmarks are others than in training." in clip.inner_text()
    clip.get_by_role("button", name="Show the report").click()
    report = page.frame_locator(".report iframe")
    report.get_by_text("Score over time").first.wait_for()
    report.get_by_role("link", name="See person 1").click()
    assert report.locator("h1").inner_text() == "clip.mp4"


def test_a_broken_file_says_why(opened: Callable[..., Any]) -> None:
    page = opened()
    upload(page, me_jpg=b"broken")
    broken = entry(page, "me.jpg")
    for said in ("Not scored: no picture.", "Send another copy", "422 Unprocessable"):
        broken.get_by_text(said).wait_for()
    assert not page.get_by_role("button", name="Copy JSON").is_visible()


def test_a_file_that_is_too_large_says_so(opened: Callable[..., Any]) -> None:
    page = opened()
    upload(page, me_jpg=bytes(LARGEST + 1), other_jpg=b"photograph")
    large = entry(page, "me.jpg")
    for said in ("Not sent: a file may have 3,000,000 bytes.", "Send a smaller", "413 "):
        large.get_by_text(said).wait_for()
    entry(page, "other.jpg").get_by_text(PHOTOGRAPH.answer.conclusion).first.wait_for()


def test_forty_files_at_once(opened: Callable[..., Any]) -> None:
    page = opened()
    upload(page, **{f"{number}_jpg": b"photograph %d" % number for number in range(40)})
    page.get_by_text("40 files: 40 done, 0 to go.").wait_for()
    names = page.locator(".entry .name").all_inner_texts()
    assert names == [f"{number}.jpg" for number in range(40)]
    assert page.locator(".sentence").all_inner_texts() == [f"{PHOTOGRAPH.answer.conclusion}."] * 40
    page.reload()
    page.get_by_text("40 files: 40 done, 0 to go.").wait_for()
    assert page.locator(".entry .name").all_inner_texts() == names


def test_going_offline_loses_nothing(opened: Callable[..., Any]) -> None:
    page = opened()
    upload(page, clip_mp4=b"another video")
    page.get_by_text(re.compile(r"Being looked at: \d of 10")).wait_for()
    page.context.set_offline(True)
    upload(page, me_jpg=b"sent later")
    page.get_by_text("The file will be sent when it can.").wait_for()
    page.get_by_text("This page goes on when it can.").wait_for()
    page.context.set_offline(False)
    page.get_by_text("2 files: 2 done, 0 to go.").wait_for()
    assert not page.get_by_text("cannot be reached").count()
    assert VIDEO.answer.conclusion in entry(page, "clip.mp4").inner_text()


def test_files_are_dropped_pasted_or_taken_by_a_camera(opened: Callable[..., Any]) -> None:
    page = opened(has_touch=True)
    given = """name => {
        const data = new DataTransfer();
        data.items.add(new File([name], name));
        return data;
    }"""
    dropped = page.evaluate_handle(given, "dropped.jpg")
    page.dispatch_event("body", "dragover", {"dataTransfer": dropped})
    page.dispatch_event("body", "drop", {"dataTransfer": dropped})
    pasted = page.evaluate_handle(given, "pasted.jpg")
    page.evaluate(
        "clipboardData => dispatchEvent(new ClipboardEvent('paste', {clipboardData}))", pasted
    )
    camera = page.get_by_label("Take a photograph")
    assert camera.get_attribute("capture") == "environment"
    camera.set_input_files({"name": "taken.jpg", "mimeType": "", "buffer": b"taken"})
    page.get_by_text("3 files: 3 done, 0 to go.").wait_for()
    names = page.locator(".entry .name").all_inner_texts()
    assert names == ["taken.jpg", "pasted.jpg", "dropped.jpg"]


def test_jobs_that_are_unknown_are_dropped(opened: Callable[..., Any]) -> None:
    page = opened()
    page.evaluate("localStorage.setItem('deepregions.jobs', 'no-such-job neither/this')")
    page.reload()
    page.get_by_text("There are none yet.").wait_for()
    assert page.evaluate("localStorage.getItem('deepregions.jobs')") == ""


def test_a_key_is_asked_for(opened: Callable[..., Any], tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.json", "somebody")
    with served(tmp_path, host="0.0.0.0") as address:
        page = opened(address)
        page.get_by_label("Key", exact=True).fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("The service doesn't know this key.").wait_for()
        assert violations(page) == []
        page.get_by_label("Key", exact=True).fill(key)
        page.keyboard.press("Enter")
        upload(page, me_jpg=b"photograph")
        entry(page, "me.jpg").get_by_text(PHOTOGRAPH.answer.conclusion).first.wait_for()
        page.get_by_role("button", name="Show the report").click()
        report = page.frame_locator(".report iframe")
        report.get_by_role("heading", name=PHOTOGRAPH.answer.conclusion).wait_for()
        page.reload()
        entry(page, "me.jpg").get_by_text(PHOTOGRAPH.answer.conclusion).first.wait_for()
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_anybody_can_use_it(opened: Callable[..., Any], scheme: str, width: int) -> None:
    phone = {"has_touch": True, "is_mobile": True} if width == 360 else {}
    page = opened(viewport={"width": width, "height": 800}, color_scheme=scheme, **phone)
    assert violations(page) == []
    assert page.get_by_text("Take a photograph").is_visible() == (width == 360)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the answers"
    long = "a-photograph-with-a-name-that-is-far-too-long-for-a-phone-and-has-no-space.jpg"
    upload(page, bad_jpg=b"broken", clip_mp4=b"video")
    upload(page, **{long.replace(".", "_"): b"photograph"})
    page.get_by_text("3 files: 3 done, 0 to go.").wait_for()
    page.locator("details").nth(2).evaluate("each => each.open = true")
    entry(page, long).get_by_role("button", name="Show the report").click()
    page.frame_locator(".report iframe").locator("h1").wait_for()
    assert violations(page) == []
    assert sideways(page) == 0
