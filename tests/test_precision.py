"""Other precisions: what they cost on a store is measured, and too much of it is refused."""

import contextlib
import io

import numpy as np
import onnx
import pytest
import torch
from data_helpers import INFO, record, small_store
from hypothesis import given
from hypothesis import strategies as st
from networks import Tint, member
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import deepregions.detectors
from deepregions.commands.cli import run
from deepregions.data.store import create_store
from deepregions.deploy import export as exporting
from deepregions.deploy.drift import Drift, compare
from deepregions.deploy.export import export
from deepregions.deploy.graph import CropsGraph
from deepregions.deploy.onnx_metadata import read_facts
from deepregions.deploy.runtimes import OpenVino, has_bf16, open_file
from deepregions.errors import ExportError, UndefinedMetricError, UnsupportedError, UsageError
from deepregions.evaluation.store_faces import FacesOfStore
from deepregions.system import System
from deepregions.types import Region
from deepregions.weights.bundle import save_bundle


class Deep(Tint):
    """Convolutions of which one adds to what went before, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Conv2d(3, 8, 3, stride=2)
        self.exact = nn.ModuleList(nn.Conv2d(8, 8, 7, padding=3) for _ in range(2))
        self.again = nn.Conv2d(8, 8, 3, padding=1)
        self.wide = nn.Conv2d(8, 8, 5, padding=2)
        self.last = nn.Linear(8, 2)

    def network(self, x: Tensor) -> Tensor:
        x = self.more(x).relu()
        for layer in self.exact:
            x = layer(x).relu()
        x = self.again(x).relu()
        x = (x + self.wide(x).relu()).mean((2, 3))
        return 20 * self.last(x)


def system(seed: int = 0) -> System:
    torch.manual_seed(seed)
    return System([member(Deep().eval()), member(Tint().eval(), Region.NOSE)])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Faces of two colours, genuine and fake in turns."""
    faces = [
        record(number, size=160, split=split, label=number // 40 % 2, video=f"v{number}")
        for number, split in zip(range(0, 250, 10), ["val"] * 9 + ["test"] * 16, strict=True)
    ]
    return create_store(tmp_path_factory.mktemp("store") / "s", INFO, faces)


def test_drift_is_of_auc_verdicts_and_log_odds():
    fake = np.array([False, False, True, True])
    expected = np.array([-1.0, 0.5, 0.25, 2.0])
    same = compare(expected, expected, fake, 0.0)
    assert same == Drift(4, 0, 0.75, 0.75, 0.0, 0.0, 0.0, 0.0) and same.small
    other = compare(expected, np.array([-1.0, -0.5, 0.25, 2.0]), fake, 0.0)
    assert other == Drift(4, 0, 0.75, 1.0, 0.25, 0.0, 1.0, 0.25) and not other.small
    moved = compare(expected, expected + 0.1, fake, 0.55)  # the AUC stays, a verdict does not
    assert (moved.auc, moved.flips) == (0.75, 0.25) and not moved.small
    lost = compare(expected, np.array([-1.0, 0.5, np.nan, 2.0]), fake, 0.0)
    assert (lost.faces, lost.lost) == (3, 1) and not lost.small
    assert "1 faces are scored by one only" in str(lost)
    with pytest.raises(UndefinedMetricError, match="not of both classes"):
        compare(expected[:2], expected[:2], fake[:2], 0.0)


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.booleans()), min_size=2))
def test_drift_is_what_scikit_learn_finds(faces):
    expected, got = (np.array([face[n] for face in faces], float) for n in (0, 1))
    fake = np.array([face[2] for face in faces])
    if fake.all() or not fake.any():
        return
    found = compare(expected, got, fake, 0.5)
    assert found.expected == pytest.approx(roc_auc_score(fake, expected))
    assert found.auc == pytest.approx(roc_auc_score(fake, got))
    assert found.flips == pytest.approx(np.mean((expected > 0) != (got > 0)))


def test_a_store_gives_some_of_its_faces_and_always_the_same(store):
    told: list[tuple[int, int]] = []
    source = FacesOfStore(store, most=10, batch_size=4, progress=lambda *x: told.append(x))
    batches = list(source.faces("test"))
    assert [len(each.image) for each in batches] == [4, 4, 2]
    assert told == [(4, 10), (8, 10), (10, 10)]
    again = list(FacesOfStore(store, most=10, batch_size=4).faces("test"))
    assert all(torch.equal(a.image, b.image) for a, b in zip(batches, again, strict=True))
    other = list(FacesOfStore(store, most=10, batch_size=4, seed=1).faces("test"))
    assert not all(torch.equal(a.image, b.image) for a, b in zip(batches, other, strict=True))
    rows = np.flatnonzero(store.splits == "test")
    (whole,) = FacesOfStore(store, batch_size=99).faces("test")
    assert whole.fake.tolist() == (store.labels[rows] == 1).tolist()


def test_int8_is_of_the_convolutions_after_the_first_three(store, tmp_path):
    path, made = tmp_path / "m.onnx", system()
    found = export(
        made, path, takes="crops", precision="int8", source=FacesOfStore(store), allow_drift=True
    )
    assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    kinds: dict[tuple[int, ...], set[int]] = {}
    for each in model.graph.initializer:
        if len(each.dims) == 4 and each.dims[2] > 1:
            kinds.setdefault(tuple(each.dims), set()).add(each.data_type)
    exact, whole = {onnx.TensorProto.FLOAT}, {onnx.TensorProto.INT8}
    # The first network's five in their order, and the only one of the second.
    shapes = [(8, 3, 3, 3), (8, 8, 7, 7), (8, 8, 3, 3), (8, 8, 5, 5), (2, 3, 5, 5)]
    assert kinds == dict(zip(shapes, [exact, exact, whole, whole, exact], strict=True))
    linear = [each for each in model.graph.initializer if sorted(each.dims) == [2, 8]]
    assert [each.data_type for each in linear] == [onnx.TensorProto.FLOAT]
    facts = read_facts(path)
    assert facts["precision"] == "int8"
    assert facts["ranges"]["store"] == "test" and facts["ranges"]["at_most"] == 128
    assert facts["ranges"]["fingerprint"] == store.fingerprint
    assert facts["drift"]["faces"] == 16 and facts["drift"]["auc"] == found.drift.auc
    batch = next(FacesOfStore(store).faces("test"))
    (inputs,) = CropsGraph(made).feeds(batch.image, batch.landmarks, batch.extent)
    with torch.inference_mode():
        expected = made(batch.image, batch.landmarks, batch.extent)
    for name in ("onnxruntime", "openvino"):
        for size in (1, 5):
            some = {key: values[:size] for key, values in inputs.items()}
            answers = open_file(name, path).run(some)
            assert answers["valid"].all()
            np.testing.assert_allclose(answers["logits"], expected.logits[:size], atol=0.6)
            assert not np.array_equal(answers["logits"], expected.logits[:size].numpy())


def exported(arguments: list[str]) -> tuple[int, str]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        return run(["export", *arguments]), printed.getvalue()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "b"
    save_bundle(list(system().members[1:]), path)
    return str(path)


def test_the_command_measures_what_a_precision_costs(store, bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(deepregions.detectors, "Tint", Tint, raising=False)  # bundles may name it
    out = tmp_path / "m.onnx"
    base = ["--bundle", bundle, "--out", str(out), "--crops-in", "--store", str(store.path)]
    code, printed = exported([*base, "--precision", "fp16", "--store-faces", "12"])
    assert code == 0
    assert "drift: AUC " in printed and "over 12 faces" in printed
    out.unlink()
    monkeypatch.setattr("deepregions.deploy.drift.AUC_LIMIT", -1.0)  # nothing is good enough
    assert exported([*base, "--precision", "fp16"]) == (1, "")
    assert "fp16 changes verdicts: AUC" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    code, printed = exported([*base, "--precision", "fp16", "--allow-drift"])
    assert code == 0 and "TOO MUCH DRIFT: AUC" in printed
    assert read_facts(out)["drift"]["store"] == "test"


def test_what_cannot_be_measured_is_named(bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(deepregions.detectors, "Tint", Tint, raising=False)
    small_store(tmp_path / "one", ["val", "test"] * 3)
    small_store(tmp_path / "none", ["train"] * 3)
    base = ["--bundle", bundle, "--out", str(tmp_path / "m.onnx")]
    for options, code, said in (
        (["--precision", "int8"], 2, "--precision int8 needs faces"),
        (["--precision", "bf16"], 2, "--precision bf16 needs faces"),
        (["--store", str(tmp_path / "one")], 4, "has no genuine face"),
        (["--store", str(tmp_path / "none")], 4, "has no face ("),
        (["--store", str(tmp_path / "absent")], 1, "there is no store at"),
        (["--store", str(tmp_path / "one"), "--store-faces", "0"], 2, "--store-faces is 0"),
    ):
        assert exported([*base, *options]) == (code, "")
        said_at_all = capsys.readouterr().err
        assert said in said_at_all and said_at_all.count("\n") == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["none", "one"]


def test_bf16_is_measured_by_openvino(store, tmp_path, monkeypatch):
    source = FacesOfStore(store)
    path = tmp_path / "m.onnx"
    with pytest.raises(UsageError, match=r"for files that take crops.*--crops-in"):
        export(system(), path, precision="bf16", source=source)
    if not has_bf16():
        with pytest.raises(UnsupportedError, match="no bfloat16"):
            export(system(), path, takes="crops", precision="bf16", source=source)
        return
    asked = []

    class Watched(OpenVino):
        def __init__(self, *arguments: object) -> None:
            asked.append(arguments[1])
            super().__init__(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(exporting, "OpenVino", Watched)
    options = {"takes": "crops", "precision": "bf16", "source": source, "allow_drift": True}
    found = export(system(), path, **options)  # type: ignore[arg-type]
    assert asked == ["bf16"]
    assert found.parity.logits < 1e-4  # the file itself is float32
    assert 1e-4 < found.drift.largest < 1
    assert read_facts(path)["precision"] == "bf16"


def test_a_network_without_numbers_is_not_exported(tmp_path):
    torch.manual_seed(0)
    broken = Tint().eval()
    with torch.no_grad():
        broken.mix.weight[0, 0, 0, 0] = torch.nan
    made = System([member(Tint().eval()), member(broken, Region.NOSE)])
    with pytest.raises(ExportError, match=r"tint_nose\.made answers with no finite number"):
        export(made, tmp_path / "m.onnx", takes="crops")
    assert not list(tmp_path.iterdir())


def test_weights_elsewhere_are_found_wherever_they_are(tmp_path):
    """A constant within a branch, too, may name a file outside."""
    tensor = onnx.numpy_helper.from_array(np.ones(3, np.float32), "w")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    constant = onnx.helper.make_node("Constant", [], ["y"], value=tensor)
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [3])
    inner = onnx.helper.make_graph([constant], "inner", [], [out])
    choice = onnx.helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
    asked = onnx.helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, [])
    last = onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [3])
    model = onnx.helper.make_model(onnx.helper.make_graph([choice], "g", [asked], [last]))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedError, match="weights in other files"):
        read_facts(tmp_path / "m.onnx")
