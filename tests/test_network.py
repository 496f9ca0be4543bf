"""No command opens an internet socket or leaves another program's files in the user's home."""

import ast
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from drawn_faces import write_drawn_store
from networks import member
from provenances import signed, signer, tagged

from deepregions.commands import cli
from deepregions.detectors import Backbone
from deepregions.types import Region
from deepregions.weights.bundle import save_bundle

ROOT = Path(__file__).parents[1]
WATCH = Path(__file__).with_name("watch")
RUNTIMES = ("onnxruntime", "openvino")
# What may appear in a home: our own cache, and matplotlib's list of the fonts of this machine.
OURS = (".cache/deepregions/", ".cache/matplotlib/fontlist-")

SMALLEST = "mobilenetv3_small_050"
SMALL = f"--model=Backbone --model.backbone={SMALLEST} --model.size=32"
ONCE = "--data.batch_size=8 --data.workers=0 --trainer.max_epochs=1"
COMMANDS = (
    "doctor",
    "benchmark --bundle bundle --landmarks dlib-hog --seconds 0.1",
    "models list",
    "models show bundle",
    "models verify bundle",
    "databases list",
    "databases check folder --root faces",
    "databases describe store --out described",
    "prepare --database folder --root faces --out prepared",
    "schema detect",
    "serve keys add program --data service",
    "serve keys list --data service",
    "serve keys revoke program --data service",
    "detect face.png --bundle bundle --out detected",
    "detect face.png --bundle bundle --runtime onnxruntime --json",
    "detect face.png --bundle bundle --runtime openvino --json",
    "archive manifest face.png --out manifest.parquet",
    "archive score manifest.parquet --bundle bundle --out archived --landmarks dlib-hog",
    "archive status archived",
    "archive merge archived --out merged.parquet",
    "archive report archived",
    "explain face.png --bundle bundle --out explained",
    "segment face.png --out segmented --backend dlib-hog",
    "forge face.png --out forged",
    "forge --store store --methods fwa --out forged-store",
    "export --bundle bundle --out model.onnx --store store --crops-in",
    "evaluate --bundle bundle --store store --out tested --bootstrap-samples 10 --gates.min_size 0",
    "fuse --bundle bundle --store store --out fused",
    "models robustness bundle --store store",
    "import face.png --out imported",
    f"reproduce {ROOT}/configs/paper.yaml --dry-run",
    f"fit {SMALL} {ONCE} --data.store=store --bundle=trained",
)
REFUSED = {"import face.png --out imported": 1, "databases check folder --root faces": 1}
# Whose purpose is the network, or, of the demo, whose faces are found by a model that is fetched.
FETCHING = {"models fetch", "bundle push", "demo"}
PROGRAM = """
import json, sys
from deepregions.commands import cli
codes = {}
for line in json.loads(sys.argv[1]):
    words = line.split()
    if words[0] in ("detect", "explain", "forge", "prepare") and "--store" not in words:
        words += ["--landmarks", "dlib-hog"]
    try:
        codes[line] = cli.run(words)
    except SystemExit as end:
        codes[line] = end.code
with open("codes.json", "w") as stream:
    json.dump(codes, stream)
"""

linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="sockets are watched by a filter of Linux's",
)


def find_distribution(name: str) -> bool:
    """Whether a package is installed; import_runtime blocks the import of some that are."""
    return bool([*importlib.metadata.distributions(name=name)])


def watched(program: str, *arguments: str, folder: Path) -> tuple[str, str, set[str]]:
    """Runs a program in a home of its own.

    Returns:
        Its standard output, who asked for internet sockets, and the files it left in the home.
    """
    home, log = folder / "home", folder / "sockets"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    # Libraries are silent in CI, and where import_runtime has told this process that they shall be.
    for name in ("DEEPREGIONS_CACHE", "CI", "ORT_DISABLE_TELEMETRY"):
        kept.pop(name, None)
    path = os.pathsep.join((str(WATCH), str(ROOT)))
    environment = kept | {"HOME": str(home), "SOCKET_WATCH": str(log), "PYTHONPATH": path}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if not log.exists():
        pytest.skip(f"sockets cannot be watched here: {done.stderr[-300:]}")
    left = {str(each.relative_to(home)) for each in home.rglob("*") if each.is_file()}
    return done.stdout + done.stderr, log.read_text(), left


@linux
@pytest.mark.slow
def test_no_command_opens_a_socket_or_leaves_foreign_files(portrait, tmp_path):
    shutil.copy(portrait, tmp_path / "face.png")
    for label in ("real", "fake"):
        (tmp_path / "faces" / label).mkdir(parents=True)
        shutil.copy(portrait, tmp_path / "faces" / label / f"{label}.png")
    write_drawn_store(tmp_path / "store", count=24, size=96)
    torch.manual_seed(0)
    networks = [
        member(Backbone(size=64, backbone=SMALLEST, pretrained=False).eval(), region, "toy")
        for region in (Region.ENTIRE, Region.EYES)
    ]
    save_bundle(networks, tmp_path / "bundle")
    said, sockets, left = watched(PROGRAM, json.dumps(COMMANDS), folder=tmp_path)
    assert not sockets, sockets
    assert (tmp_path / "codes.json").is_file(), said  # a command ended the program
    codes = json.loads((tmp_path / "codes.json").read_text())
    assert codes == dict.fromkeys(COMMANDS, 0) | REFUSED, said
    watched_commands = {name for name in cli.COMMANDS for line in COMMANDS if line.startswith(name)}
    assert watched_commands == {*cli.COMMANDS} - FETCHING
    assert {name for name in left if not name.startswith(OURS)} == set()


@linux
@pytest.mark.parametrize("module", RUNTIMES)
def test_a_runtime_by_itself_would_be_seen(module, tmp_path):
    """What the watch is for: if one of these fails, its library no longer phones home."""
    if not find_distribution("openvino-telemetry"):
        pytest.skip("it comes with the extra openvino")
    _, sockets, left = watched(f"import {module}", folder=tmp_path)
    assert sockets or any("onnxruntime" in name for name in left)


CREDENTIALS = """
import sys
from pathlib import Path
from deepregions.media import MediaReader, Sampling
from deepregions.media.credentials import read_credentials
paths = [Path(name) for name in sys.argv[1:]]
for path in paths:
    print("here", read_credentials(path.open("rb"), lambda: None))
with MediaReader() as reader:
    for media in reader.open_all(paths, Sampling()):
        print(sum(len(batch) for batch in media.batches()), media.provenance())
"""


@linux
def test_reading_credentials_opens_no_socket(tmp_path):
    """Neither for a manifest that is elsewhere nor to ask whether a certificate was withdrawn."""
    pytest.importorskip("c2pa", reason="the extra c2pa is not installed")
    by, elsewhere = signer(), "http://127.0.0.1:9/manifest"
    (here := tmp_path / "here.jpg").write_bytes(signed(tagged("JPEG"), "image/jpeg", by))
    content = signed(tagged("PNG"), "image/png", by, remote=elsewhere)
    (remote := tmp_path / "remote.png").write_bytes(content)
    (tmp_path / "ours").mkdir()
    said, sockets, _ = watched(CREDENTIALS, str(here), str(remote), folder=tmp_path / "ours")
    assert not sockets, sockets
    assert said.count("state='valid'") == 2, said
    assert f"remote='{elsewhere}', credentials=None" in said
    (tmp_path / "its").mkdir()
    by_itself = "import c2pa, sys; c2pa.Reader(None, open(sys.argv[1], 'rb'))"
    _, sockets, _ = watched(by_itself, str(remote), folder=tmp_path / "its")
    assert sockets  # what the settings are for


def test_runtimes_are_imported_by_one_function():
    """Only import_runtime keeps them from phoning home."""
    for path in (ROOT / name for name in ("deepregions", "benchmarks", "tools", "tests")):
        for file in path.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names: list[str] = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                elif isinstance(node, ast.Call) and node.args:
                    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                    word = node.args[0]
                    if name in ("require", "importorskip", "import_module", "__import__"):
                        names = [str(getattr(word, "value", ""))]
                roots = {name.partition(".")[0] for name in names}
                assert not roots & set(RUNTIMES), f"{file}:{getattr(node, 'lineno', 0)}"
