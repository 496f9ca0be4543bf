"""Files from strangers: nothing in them runs, and what they claim is checked."""

import argparse
import builtins
import importlib
import io
import os
import pickle
import struct
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest
import torch
from foreign import posing
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn

from deepregions.commands.cli import run
from deepregions.errors import DeepregionsError, UnreadableError
from deepregions.safe_pickle import StandIn, read_checkpoint, read_state_dict, state_dict_of

CANARY = "canary"  # what a pickle that runs makes, in the working directory
MADE = f"open({CANARY!r}, 'w')"


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


class Reads(nn.Module):
    """A network that does more than it should when it is unpickled."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def __setstate__(self, state: dict[str, Any]) -> None:
        eval(MADE)
        self.__dict__.update(state)


def of_import(name: bytes) -> bytes:
    return b"cimportlib\nimport_module\n(S'" + name + b"'\ntR"


ATTACKS: dict[str, bytes | Call] = {
    "os.system": Call(os.system, f"touch {CANARY}"),
    "eval": Call(builtins.eval, MADE),
    "exec": Call(builtins.exec, MADE),
    "popen": Call(subprocess.getoutput, f"touch {CANARY}"),
    "import_module": Call(importlib.import_module, "antigravity"),
    "getattr chain": (
        b"cbuiltins\ngetattr\n(" + of_import(b"os") + b"S'system'\ntR(S'touch canary'\ntR."
    ),
    "dotted name": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x14"
    + b"open('canary', 'w')\n"
    + b"\x85R.",
    "inst": b'(S"' + MADE.encode() + b'"\nibuiltins\neval\n.',
    "obj": b'(cbuiltins\neval\nS"' + MADE.encode() + b'"\no.',
    "behind a known class": b'cbuiltins\neval\n(S"' + MADE.encode() + b'"\ntR0}.',
    "in a value": b"(dS'a'\ncbuiltins\neval\n(S\"" + MADE.encode() + b'"\ntRs.',
    "state of a function": b'cbuiltins\neval\n(S"' + MADE.encode() + b'"\ntR}b.',
}


def pickled(attack: bytes | Call) -> bytes:
    return attack if isinstance(attack, bytes) else pickle.dumps({"net": attack}, protocol=2)


def as_zip(data: bytes, **parts: bytes) -> bytes:
    """Torch's format since 1.6, around a pickle."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
        for name, part in parts.items():
            archive.writestr(f"archive/data/{name}", part)
    return stream.getvalue()


LEGACY_HEAD = b"".join(
    pickle.dumps(each, protocol=2)
    for each in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})
)


def as_legacy(data: bytes, storages: dict[str, bytes] | None = None) -> bytes:
    """Torch's format before 1.6, around a pickle; storages are preceded by their length."""
    storages = storages or {}
    keys = pickle.dumps(list(storages), protocol=2)
    return LEGACY_HEAD + data + keys + b"".join(storages.values())


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "import_module"])
def test_the_attacks_are_real(name):
    pickle.loads(pickled(ATTACKS[name]))
    assert Path(CANARY).exists()


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("container", ["bare", "zip", "legacy", "legacy header", "legacy keys"])
def test_nothing_runs_and_nothing_is_written(name, container, capsys):
    data = pickled(ATTACKS[name])
    wrapped = {
        "bare": data,
        "zip": as_zip(data),
        "legacy": as_legacy(data),
        "legacy header": LEGACY_HEAD[: LEGACY_HEAD.index(b".") + 1] + data,
        "legacy keys": LEGACY_HEAD + pickle.dumps({}, 2) + data,
    }[container]
    path = Path("all_c23.p")
    path.write_bytes(wrapped)
    modules = set(sys.modules)
    with pytest.raises(UnreadableError, match=r"refused.*nothing of it was run") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert run(["import", str(path), "--out", "out"]) == 1
    assert "refused" in capsys.readouterr().out
    assert sorted(each.name for each in Path().iterdir()) == ["all_c23.p"]
    assert "antigravity" not in set(sys.modules) - modules


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_networks_own_setstate_is_not_called(legacy):
    network = Reads()
    expected = network.state_dict()
    with posing({Reads: "network.models"}):
        torch.save(network, "x.p", _use_new_zipfile_serialization=not legacy)
        torch.load("x.p", weights_only=False)
        assert Path(CANARY).exists()  # as it would do
        Path(CANARY).unlink()
        tree = read_checkpoint(Path("x.p"))
    assert isinstance(tree, StandIn)
    assert (type(tree).__module__, type(tree).__name__) == ("network.models", "Reads")
    read = state_dict_of(tree)
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[key], expected[key]) for key in expected)
    assert not Path(CANARY).exists()


class Odd(nn.Module):
    """What state dicts leave out, share, or nest."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(3, 3)
        self.again = self.shared
        self.absent = None
        self.register_buffer("kept", torch.arange(6.0).view(2, 3).t())
        self.register_buffer("left_out", torch.zeros(1), persistent=False)
        self.register_parameter("none", None)
        self.nested = nn.Sequential(nn.BatchNorm2d(2), nn.ModuleList([nn.Conv1d(1, 1, 1)]))
        self.small = nn.Parameter(torch.ones(2, dtype=torch.float16))
        self.choices = {"a": {1, 2}, "b": (1, [2.5, None])}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrap", [None, "net", "state_dict", "model", "network"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_arrays_are_read_with_what_surrounds_them(legacy, wrap):
    network = nn.DataParallel(Odd())
    expected = network.state_dict()
    tree = {None: expected, "network": network}.get(wrap, {"epoch": 3, wrap: expected, "best": 0.5})
    with posing({Odd: "network.models"}):
        torch.save(tree, "x.pth", _use_new_zipfile_serialization=not legacy)
    read = read_state_dict(Path("x.pth"))
    assert read.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(read[key], value, rtol=0, atol=0)


class Storage:
    """Stands for a storage in :func:`forged`."""

    def __init__(self, count: int, key: str = "0", kind: type = torch.FloatStorage) -> None:
        self.id = ("storage", kind, key, "cpu", count)


class _Forger(pickle.Pickler):
    def __init__(self, stream: io.BytesIO, *, legacy: bool) -> None:
        super().__init__(stream, protocol=2)
        self.legacy = legacy

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Storage):
            return (*value.id, None) if self.legacy else value.id
        return None


def forged(tree: Any, *, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    _Forger(stream, legacy=legacy).dump(tree)
    return stream.getvalue()


def tensor(storage: Any, offset: Any, size: Any, stride: Any) -> Call:
    arguments = (storage, offset, size, stride, False, OrderedDict())
    return Call(torch._utils._rebuild_tensor_v2, *arguments)


LIES = {
    "more than stored": tensor(Storage(1000), 0, (1000,), (1,)),
    "far more than stored": tensor(Storage(1 << 50), 0, (1 << 50,), (1,)),
    "beyond the storage": tensor(Storage(4), 0, (5,), (1,)),
    "offset": tensor(Storage(4), 2, (3,), (1,)),
    "negative offset": tensor(Storage(4), -1, (2,), (1,)),
    "stride": tensor(Storage(4), 0, (2, 2), (3, 1)),
    "negative stride": tensor(Storage(4), 3, (2,), (-1,)),
    "negative size": tensor(Storage(4), 0, (-2,), (1,)),
    "repeated": tensor(Storage(4), 0, (1 << 38,), (0,)),
    "sides": tensor(Storage(4), 0, (1,) * 200, (1,) * 200),
    "sides and strides": tensor(Storage(4), 0, (2, 2), (1,)),
    "no numbers": tensor(Storage(4), 0, ("a",), (1,)),
    "no storage": tensor("storage", 0, (1,), (1,)),
    "negative count": tensor(Storage(-4), 0, (1,), (1,)),
    "another type": tensor(Storage(2, kind=torch.DoubleStorage), 0, (4,), (1,)),
}


@pytest.mark.parametrize("legacy", [False, True])
def test_forged_files_are_read_where_they_do_not_lie(legacy):
    data = forged({"a": tensor(Storage(4), 1, (3,), (1,))}, legacy=legacy)
    numbers = struct.pack("<4f", 0, 1, 2, 3)
    stored = struct.pack("<q", 4) + numbers
    Path("x.pt").write_bytes(
        as_legacy(data, {"0": stored}) if legacy else as_zip(data, **{"0": numbers})
    )
    (value,) = read_state_dict(Path("x.pt")).values()
    assert value.tolist() == [1, 2, 3]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("lie", LIES)
def test_sizes_that_lie_are_refused(lie, legacy):
    data = forged({"a": LIES[lie]}, legacy=legacy)
    numbers = struct.pack("<4f", 0, 1, 2, 3)
    count = struct.pack("<q", LIES[lie].arguments[0].id[4] if lie != "no storage" else 4)
    whole = as_legacy(data, {"0": count + numbers}) if legacy else as_zip(data, **{"0": numbers})
    Path("x.pt").write_bytes(whole)
    with pytest.raises(UnreadableError, match=r"x\.pt") as caught:
        read_state_dict(Path("x.pt"))
    assert "\n" not in str(caught.value)


def test_a_zip_bomb_is_not_unpacked():
    data = forged({"a": tensor(Storage(1 << 26), 0, (1 << 26,), (1,))})
    with zipfile.ZipFile("x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", bytes(1 << 28))
    assert Path("x.pt").stat().st_size < 1 << 20
    with pytest.raises(UnreadableError, match="compressed"):
        read_checkpoint(Path("x.pt"))


def test_an_archive_whose_parts_overlap_is_refused():
    whole = bytearray(as_zip(pickle.dumps({}), **{"0": bytes(64)}))
    size = struct.pack("<LL", 64, 64)
    place = whole.rindex(size, 0, len(whole))  # in the central directory, the last one
    whole[place : place + 8] = struct.pack("<LL", 1 << 30, 1 << 30)
    Path("x.pt").write_bytes(whole)
    with pytest.raises(UnreadableError, match="more than the file"):
        read_checkpoint(Path("x.pt"))


def safetensors(header: bytes, length: int | None = None, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


ENTRY = b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}'


@pytest.mark.parametrize(
    "whole",
    [
        safetensors(ENTRY % (2, 8), length=1 << 62),
        safetensors(ENTRY % (1 << 40, 1 << 42), data=bytes(8)),
        safetensors(b"{}"),
        safetensors(b"{" * 1000),
    ],
)
def test_safetensors_that_lie_are_refused(whole, capsys):
    Path("capsule_1.pt").write_bytes(whole)
    with pytest.raises(UnreadableError, match=r"capsule_1\.pt"):
        read_state_dict(Path("capsule_1.pt"))
    assert run(["import", "capsule_1.pt", "--out", "out"]) == 1
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        (b"", "x.pt"),
        (b"PK\x03\x04", "broken archive"),
        (b"no checkpoint at all", "x.pt"),
        (as_legacy(b"")[:100], "x.pt"),
        (LEGACY_HEAD, "x.pt"),
        (as_zip(b"N."), "no arrays by name"),
        (as_zip(b"]q\x00h\x00a."), "no arrays by name"),  # a list that contains itself
        (as_zip(b"}U\x01a}s."), "no arrays by name"),
        (as_zip(b"(l0" * 3 + b"R."), "broken pickle"),
        (as_zip(b"\x80\x02" + b"(" * 5000 + b"."), "broken pickle"),
        (as_zip(b"\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00}."), "broken pickle"),
        (as_zip(b"cnetwork.models\nA.b\n."), r"network\.models\.A\.b"),
        (as_zip(b"cnetwork.models\nA\nK\x01\x85R]b."), "no arrays by name"),
        (as_zip(b"ccollections\nOrderedDict\n}b."), "broken pickle"),
        (as_zip(b"ctorch._utils\n_rebuild_tensor_v2\n)R."), "x.pt"),
    ],
)
def test_what_is_no_checkpoint_is_one_line(whole, message):
    Path("x.pt").write_bytes(whole)
    with pytest.raises(UnreadableError, match=message) as caught:
        read_state_dict(Path("x.pt"))
    assert str(caught.value).startswith("x.pt")
    assert "\n" not in str(caught.value)


def test_a_network_that_contains_itself_ends():
    shell = b"cnetwork.models\nNet\n)\x81q\x00"  # an object, kept as 0, whose child it is
    modules = text("_modules") + b"}(" + text("a") + b"h\x00" + text("b") + b"h\x00u"
    Path("x.pt").write_bytes(as_zip(shell + b"}" + modules + b"sb."))
    with pytest.raises(UnreadableError, match="contains itself"):
        read_state_dict(Path("x.pt"))


def text(value: str) -> bytes:
    return b"X" + struct.pack("<L", len(value)) + value.encode()


@pytest.mark.parametrize("python", [2, 3])
def test_networks_of_old_versions_of_torch_are_read(python):
    """As of torch 1.0: classes with their source, a backend in every module, devices and sets."""
    weight = Call(
        torch._utils._rebuild_parameter, tensor(Storage(4), 0, (2, 2), (2, 1)), True, OrderedDict()
    )
    data = forged(weight, legacy=True)[2:-1]  # without PROTO and STOP
    source = "class TransferModel(nn.Module):\n" + "    pass\n" * 99
    if python == 2:
        source = b"T" + struct.pack("<L", len(source)) + source.encode()
    else:
        source = text(source)
    file = text("network/models.py") + b"q\x62"
    kind = b"(" + text("module") + b"q\x60cnetwork.models\nTransferModel\nq\x61" + file + source
    backend = b"ctorch.nn.backends.thnn\n_get_thnn_function_backend\n)R"
    device = b"ctorch\ndevice\n" + text("cuda") + b"K\x00\x86R"
    network = (
        b"\x80\x02" + kind + b"q\x63tq\x64Q)\x81}("
        + text("_backend") + backend
        + text("file") + b"h\x62"
        + text("device") + device
        + text("seen") + b"c__builtin__\nset\n]K\x03a\x85R"
        + text("_parameters") + b"ccollections\nOrderedDict\n]]"
        + b"(" + text("weight") + data + b"ea\x85R"
        + b"ub."
    )  # fmt: skip
    stored = struct.pack("<q", 4) + struct.pack("<4f", 0, 1, 2, 3)
    Path("x.p").write_bytes(as_legacy(network, {"0": stored}))
    tree = read_checkpoint(Path("x.p"))
    assert str(tree.state["device"]) == "cuda:0"
    assert tree.state["seen"] == {3}
    assert tree.state["file"] == "network/models.py"
    assert state_dict_of(tree)["weight"].tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize("legacy", [False, True])
def test_what_a_training_saves_beside_arrays_is_passed_over(legacy):
    state = nn.Linear(2, 2).state_dict()
    tree = {
        "args": argparse.Namespace(data=PosixPath("/data"), lr=0.1),
        "best": np.float64(0.93),
        "curve": np.arange(3.0),
        "state_dict": state,
    }
    torch.save(tree, "x.pth.tar", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(pickle.UnpicklingError):  # what everyone meets
        torch.load("x.pth.tar", weights_only=True)
    read = read_state_dict(Path("x.pth.tar"))
    assert all(torch.equal(read[key], state[key]) for key in state)


@pytest.mark.parametrize(
    "data",
    [
        b"cnetwork.models\n" + b"A" * 200_000 + b"\n.",
        text("A" * 200_000) + b")R.",
        text("A" * 200_000) + b")\x81.",
        b"cbuiltins\nbytearray\nJ\x00\x00\x00\x40\x85R)R.",
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_what_would_keep_torch_busy_for_hours_is_refused_at_once(data, legacy):
    Path("x.pt").write_bytes(as_legacy(data) if legacy else as_zip(data))
    start = time.process_time()
    with pytest.raises(UnreadableError, match="refused"):
        read_state_dict(Path("x.pt"))
    assert time.process_time() - start < 5


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(list(b"().0123cNRK\x81\x85}]ablduteqhjPQoi2gp\x93\x94\x8c\n")), max_size=40
    )
)
@example(list(b"N."))
def test_any_bytes_are_read_or_refused(letters):
    data = bytes(letters)
    for whole in (data, as_zip(data), as_legacy(data)):
        Path("x.pt").write_bytes(whole)
        with suppress(DeepregionsError):
            read_state_dict(Path("x.pt"))
