"""The page of docs/web in a real browser: its numbers are onnxruntime's, or it says why not."""

import functools
import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import Tint, calibration, landmarks, member, pixels
from PIL import Image

from deepregions.deploy.export import export
from deepregions.deploy.graph import CalibrationModule
from deepregions.devices import import_runtime
from deepregions.system import System
from deepregions.types import Region

PAGE = Path(__file__).parents[1] / "docs" / "web"
LONGEST = 240  # seconds, on a machine that does much else
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# Opens the page in a frame once for each case, as a user would, and posts what it then shows.
HARNESS = """<!doctype html><iframe id="frame" width="800" height="800"></iframe><script>
const frame = document.querySelector("#frame");
const wait = (ready) => new Promise((done) => {
  const timer = setInterval(() => { if (ready()) { clearInterval(timer); done(); } }, 50);
});
async function show({ query, files }) {
  await new Promise((done) => { frame.onload = done; frame.src = "web/index.html" + query; });
  const page = frame.contentDocument;
  for (const [name, path] of Object.entries(files)) {
    const chosen = new DataTransfer();
    chosen.items.add(new File([await (await fetch(path)).blob()], path));
    page.forms[0].elements[name].files = chosen.files;
  }
  if (!query) page.querySelector("button").click();
  await wait(() => ["done", "error"].includes(page.body.dataset.state));
  const texts = (line) => [...line.cells].map((cell) => cell.textContent);
  return {
    state: page.body.dataset.state,
    message: page.querySelector("#message").textContent,
    hidden: page.querySelector("#answer").hidden,
    cells: [...page.querySelectorAll("tbody tr")].map(texts),
    total: [...page.querySelectorAll("tfoot tr")].map(texts),
  };
}
(async () => {
  const shown = {};
  for (const [name, each] of Object.entries(await (await fetch("cases.json")).json())) {
    shown[name] = await show(each);
  }
  await fetch("shown", { method: "POST", body: JSON.stringify(shown) });
})();
</script>"""

GOOD = {"model": "model.onnx", "image": "face.png", "landmarks": "landmarks.json"}
CASES = {
    "files": {"query": "", "files": GOOD},
    "parameters": {
        "query": "?" + "&".join(f"{name}=../{path}" for name, path in GOOD.items()),
        "files": {},
    },
    "plain points": {"query": "", "files": GOOD | {"landmarks": "points.json"}},
    "nothing chosen": {"query": "", "files": {}},
    "no landmarks": {"query": "", "files": {"model": "model.onnx", "image": "face.png"}},
    "not a model": {"query": "", "files": GOOD | {"model": "face.png"}},
    "half a model": {"query": "", "files": GOOD | {"model": "half.onnx"}},
    "spoilt model": {"query": "", "files": GOOD | {"model": "spoilt.onnx"}},
    "crops": {"query": "", "files": GOOD | {"model": "crops.onnx"}},
    "not an image": {"query": "", "files": GOOD | {"image": "points.json"}},
    "not JSON": {"query": "", "files": GOOD | {"landmarks": "face.png"}},
    "few points": {"query": "", "files": GOOD | {"landmarks": "few.json"}},
    "no face": {"query": "", "files": GOOD | {"landmarks": "far.json"}},
    "no such file": {
        "query": "?model=../gone.onnx&image=../face.png&landmarks=../points.json",
        "files": {},
    },
}


class Handler(SimpleHTTPRequestHandler):
    """Serves files, and keeps what is posted."""

    def __init__(self, *given: Any, posted: queue.Queue[bytes], directory: str) -> None:
        self.posted = posted
        super().__init__(*given, directory=directory)

    def do_POST(self) -> None:
        self.posted.put(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served(folder: Path, posted: queue.Queue[bytes]) -> Iterator[str]:
    handler = functools.partial(Handler, posted=posted, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def browsing(url: str, profile: Path) -> Iterator[subprocess.Popen[bytes]]:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("there is no Chromium")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    options = ["--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    offline = ["--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND"]
    offline[1] += " , EXCLUDE 127.0.0.1"
    command = [browser, *options, *sandbox, *offline, f"--user-data-dir={profile}"]
    with (profile.parent / "browser.log").open("wb") as log:
        process = subprocess.Popen([*command, url], stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the cases name, and the page."""
    if not (PAGE / "node_modules" / "onnxruntime-web").is_dir():
        pytest.skip("onnxruntime-web is not in docs/web/node_modules; npm brings it")
    path = tmp_path_factory.mktemp("web")
    (path / "web").symlink_to(PAGE)
    torch.manual_seed(0)
    networks = [member(Tint(40).eval(), region) for region in (Region.ENTIRE, Region.NOSE)]
    system = System([replace(one, layout="tight", resample="nearest") for one in networks])
    line = calibration(1.7, 0.4, -15, 20)
    export(system, path / "model.onnx", calibration=CalibrationModule(line))
    export(system, path / "crops.onnx", takes="crops")
    content = (path / "model.onnx").read_bytes()
    (path / "half.onnx").write_bytes(content[: len(content) // 2])
    (path / "spoilt.onnx").write_bytes(content.replace(b"Conv", b"Cunv"))
    Image.fromarray(pixels(230, 220)).save(path / "face.png")
    points = [[float(value) for value in each] for each in landmarks()[0]]
    texts = {
        "landmarks": {"points": points, "order": "iBUG-68"},
        "points": points,
        "few": points[1:],
        "far": [[x + 9000, y] for x, y in points],
        "cases": CASES,
    }
    for name, content in texts.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    (path / "harness.html").write_text(HARNESS)
    return path


@pytest.fixture(scope="module")
def shown(folder: Path) -> dict[str, Any]:
    """What the page shows in each case."""
    posted: queue.Queue[bytes] = queue.Queue()
    url_of = served(folder, posted)
    with url_of as url, browsing(f"{url}/harness.html", folder / "profile") as process:
        for _ in range(LONGEST):
            try:
                return dict(json.loads(posted.get(timeout=1)))
            except queue.Empty:
                if process.poll() is not None:
                    break
    log = (folder / "browser.log").read_text(errors="replace")
    pytest.fail(f"the browser showed nothing within {LONGEST} s: {log[-2000:]}")


@pytest.mark.parametrize("case", ["files", "parameters", "plain points"])
def test_the_numbers_are_those_of_onnxruntime(
    folder: Path, shown: dict[str, Any], case: str
) -> None:
    session = import_runtime("onnxruntime").InferenceSession(str(folder / "model.onnx"))
    image = np.array(Image.open(folder / "face.png")).transpose(2, 0, 1)[None]
    inputs = {"image": np.ascontiguousarray(image), "landmarks": landmarks().numpy()}
    logits, valid, fused, llr = session.run(["logits", "valid", "fused", "llr"], inputs)
    assert valid.all() and len({*logits.flatten().tolist(), *fused.tolist(), *llr.tolist()}) == 4
    page = shown[case]
    assert (page["state"], page["message"], page["hidden"]) == ("done", "", False)
    assert [each[:2] for each in page["cells"]] == [["tint", "entire"], ["tint", "nose"]]
    assert [each[0] for each in page["total"]] == ["Fused", "Log-likelihood ratio"]
    numbers = [float(each[2]) for each in (*page["cells"], *page["total"])]
    expected = [*logits.flatten().tolist(), fused.item(), llr.item()]
    assert numbers == pytest.approx(expected, abs=1.5e-4)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("nothing chosen", "Not scored: choose the exported file"),
        ("no landmarks", "Not scored: choose the landmarks file"),
        ("not a model", "Not scored: the model is not a whole file of deepregions export"),
        ("half a model", "Not scored: the model is not a whole file of deepregions export"),
        ("spoilt model", "Not scored: onnxruntime-web cannot load the model: "),
        ("crops", "Not scored: the model takes ready crops: export it without --crops-in"),
        ("not an image", "Not scored: the photograph cannot be read as an image"),
        ("not JSON", "Not scored: the landmarks are not JSON"),
        ("few points", "Not scored: the landmarks are not 68 points [x, y] of one face"),
        ("no such file", "Not scored: ../gone.onnx cannot be fetched: 404"),
    ],
)
def test_what_cannot_be_scored_is_one_message(shown: dict[str, Any], case: str, said: str) -> None:
    page = shown[case]
    assert page["state"] == "error" and page["hidden"] and not page["total"]
    assert page["message"].startswith(said) and "\n" not in page["message"]


def test_no_verdict_where_nothing_can_be_judged(shown: dict[str, Any]) -> None:
    page = shown["no face"]
    assert page["message"] == "No region can be judged: no verdict."
    assert page["state"] == "done" and page["hidden"] and not page["total"]
