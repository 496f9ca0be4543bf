"""Xceptions from Keras: every layout, every head, and files that are broken or mean harm."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from convert_keras import convert_keras as command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras_writer import LAYOUTS, TF110, Example, Old, hollow, hollow_archive, saved
from PIL import Image
from safetensors import safe_open

import deepregions.weights.convert.keras_files as keras_files
from deepregions.commands.cli import run_program
from deepregions.detectors import Xception
from deepregions.errors import DeepregionsError, UnreadableError, UsageError
from deepregions.files import sha256
from deepregions.weights.convert.keras import KerasXception, convert_keras, inspect_keras

TOOL = Path(__file__).parents[1] / "tools" / "convert_keras.py"
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def example() -> Example:
    """The network at 200 pixels, all maps odd."""
    pytest.importorskip("keras", reason="the original Xception is Keras's: pip install keras")
    return Example(200)


@pytest.fixture(scope="module")
def even(example: Example) -> Example:
    """The same at 224 pixels, where padding is lopsided; its layers are numbered higher."""
    return Example(224, example.flat.get_weights())


@pytest.fixture(scope="module")
def answers(example: Example, even: Example) -> dict[int, np.ndarray]:
    """Keras's own probabilities of class 0, by size."""
    found = {each.size: each.flat.predict(each.x, verbose=0)[:, 0] for each in (example, even)}
    for probabilities in found.values():  # far from 0 and 1, and not all the same
        assert np.ptp(probabilities) > 0.01
        assert ((probabilities > 0.02) & (probabilities < 0.98)).all()
    return found


@pytest.fixture(scope="module")
def small(example: Example, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Files without numbers: a whole model, weights of a nested one, an archive."""
    folder = tmp_path_factory.mktemp("small")
    paths = [
        hollow(example, folder / "a.hdf5"),
        hollow(example, folder / "b.hdf5", weights_only=True, nested="list"),
        hollow_archive(example, folder / "c.keras"),
    ]
    for path in paths:
        assert len(inspect_keras(path).arrays) == 236
    return [path.read_bytes() for path in paths]


@pytest.fixture
def hollow_file(small: list[bytes], tmp_path: Path) -> Path:
    """The whole model without numbers, to be spoilt."""
    path = tmp_path / "model.hdf5"
    path.write_bytes(small[0])
    return path


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read without the trial in a process of its own, to save its time."""
    monkeypatch.setattr(keras_files, "_try", lambda path: None)


@pytest.fixture(autouse=True)
def light(tmp_path: Path) -> Iterator[None]:
    """Removes what a test wrote: pytest would keep 84 MB a file."""
    yield
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()


def probabilities(detector: Xception, x: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return detector(torch.from_numpy(x).permute(0, 3, 1, 2)).sigmoid().numpy()


@pytest.fixture(scope="module")
def reference(
    example: Example,
    even: Example,
    answers: dict[int, np.ndarray],
    tmp_path_factory: pytest.TempPathFactory,
) -> KerasXception:
    """The network converted once, and what it computes compared with Keras at both sizes."""
    path = saved(example.flat, tmp_path_factory.mktemp("keras") / "reference.keras")
    converted = convert_keras(path, fake_index=0)
    path.unlink()
    for each in (example, even):
        detector = Xception(**{**converted.settings, "size": each.size}).eval()
        detector.load_state_dict(converted.state)
        difference = np.abs(probabilities(detector, each.x) - answers[each.size]).max()
        assert difference < TOLERANCE
    return converted


def assert_same(converted: KerasXception, reference: KerasXception) -> None:
    """Equal numbers in equal networks compute what was compared with Keras."""
    assert converted.settings == reference.settings
    assert converted.state.keys() == reference.state.keys()
    for key, value in reference.state.items():
        assert torch.equal(converted.state[key], value), key


@pytest.mark.parametrize("layout", LAYOUTS, ids=": ".join)
def test_every_layout_gives_the_network_that_equals_keras(
    layout: tuple[str, str],
    example: Example,
    reference: KerasXception,
    tmp_path: Path,
    trusting: None,
) -> None:
    path = LAYOUTS[layout](example, tmp_path)
    converted = convert_keras(path, fake_index=0)
    assert_same(converted, reference)
    assert len(converted.arrays) == 236
    assert len({array.theirs for array in converted.arrays}) == 236
    assert converted.size == (None if "weights" in layout[1] else 200)


def test_one_sigmoid_is_the_probability_of_class_1(example: Example, tmp_path: Path) -> None:
    kernel, bias = example.dense.get_weights()
    model = example.head(example.top(1, "sigmoid"), [kernel[:, 1:], bias[1:]])
    path = saved(model, tmp_path / "model.h5")
    expected = model.predict(example.x, verbose=0)[:, 0]
    assert np.ptp(expected) > 0.01
    for fake_index in (None, 0, 1):
        converted = convert_keras(path, fake_index=fake_index)
        assert converted.head == "Dense(1, sigmoid)"
        ours = probabilities(converted.detector(), example.x)
        theirs = expected if fake_index == 1 else 1 - expected
        assert np.abs(ours - theirs).max() < TOLERANCE


def test_class_order_turns_scores_around(reference: KerasXception, tmp_path: Path, example) -> None:
    path = LAYOUTS["Keras 3", ".weights.h5, flat"](example, tmp_path)
    turned = convert_keras(path, fake_index=1)
    for kind in ("weight", "bias"):
        key = f"classifier.{kind}"
        assert torch.equal(turned.state[key].flip(0), reference.state[key])
    with pytest.raises(UsageError, match="class 2"):
        convert_keras(path, fake_index=2)
    assert convert_keras(path, size=224).size == 224


def test_rescaling_in_the_model_becomes_normalisation(example: Example, tmp_path: Path) -> None:
    model = example.head(example.nested(rescaling=True), example.dense.get_weights())
    path = saved(model, tmp_path / "model.keras")
    converted = convert_keras(path)
    assert converted.settings["normalisation"] == "centred"
    expected = model.predict(example.images.astype(np.float32), verbose=0)[:, 0]
    assert np.abs(probabilities(converted.detector(), example.x) - expected).max() < TOLERANCE
    with pytest.raises(UsageError, match="images of 200 pixels, not of 224"):
        convert_keras(path, size=224)


@pytest.mark.parametrize("top", [True, False])
def test_imagenet_models_become_backbone_files(
    top: bool, example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = example.top(1000, "softmax") if top else example.base
    path = saved(model, tmp_path / ("top.h5" if top else "notop.weights.h5"))
    out = tmp_path / "backbone.safetensors"
    assert run_program(command, [str(path), str(out)]) == 0
    printed = capsys.readouterr().out
    assert ("Dense(1000, softmax)" if top else "head: none") in printed
    assert "class order" not in printed
    detector = Xception(200, backbone_file=str(out)).eval()
    with torch.inference_mode():
        ours = detector.backbone(torch.from_numpy(example.x).permute(0, 3, 1, 2)).numpy()
    theirs = example.features.predict(example.x, verbose=0)
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()
    with pytest.raises(UnreadableError, match="no class for fakes"):
        convert_keras(path).detector()
    with pytest.raises(UsageError, match="no class for fakes"):
        convert_keras(path, fake_index=0)
    assert run_program(command, [str(path), str(out), "--verify", str(tmp_path)]) == 2


def test_the_tool_says_what_it_found_and_scores(
    example: Example,
    reference: KerasXception,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # no terminal: nothing is asked
    model = Old(version=TF110).write(example.flat, tmp_path / "Xception_UADFV_nose.hdf5")
    images = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    Image.fromarray(example.images[0]).save(images[0])
    Image.fromarray(example.images[1].repeat(2, 0).repeat(2, 1)).save(images[1])
    out = tmp_path / "out" / "nose.safetensors"
    assert run_program(command, [str(model), str(out), "--verify", *images]) == 0
    printed = capsys.readouterr().out
    for text in ("200 x 200", "Dense(2, softmax)", "all 236 mapped, none left over", "2.1.6-tf"):
        assert text in printed
    assert "class 0 is taken as fake" in printed
    assert "class order: fake, real" in printed
    scores = re.findall(r"([ab])\.png: score ([\d.]+)", printed)
    expected = probabilities(reference.detector(), example.x[:2])
    assert [name for name, _ in scores] == ["a", "b"]
    assert np.abs(np.array([float(score) for _, score in scores]) - expected).max() < 2e-6
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
        assert set(file.keys()) == set(reference.state)
    assert json.loads(metadata["settings"]) == reference.settings
    assert (metadata["class"], metadata["fake_index"]) == ("Xception", "0")
    assert metadata["source_sha256"] == sha256(model)


def test_inspecting_writes_nothing(hollow_file: Path, tmp_path: Path) -> None:
    printed = subprocess.run(
        [sys.executable, TOOL, hollow_file, tmp_path / "out.safetensors", "--inspect"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(TOOL.parents[1])},
    ).stdout
    assert len([line for line in printed.splitlines() if " backbone." in line]) == 234
    assert re.search(r"dense_1/bias:0 +2 +classifier\.bias", printed)
    assert list(tmp_path.iterdir()) == [hollow_file]


def test_the_class_order_is_asked_for_or_given(
    hollow_file: Path,
    tmp_path: Path,
    trusting: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    files = [str(hollow_file), str(tmp_path / "out.safetensors")]
    monkeypatch.setattr(sys, "stdin", Terminal("real\n1\n"))
    for option, asked in (((), 2), (("--fake-index", "1"), 0), (("--fake_index=1",), 0)):
        assert run_program(command, [*files, *option]) == 0
        printed = capsys.readouterr()
        assert printed.err.count("Which class is fake") == asked
        assert "class order: real, fake" in printed.out
        assert "is taken as fake" not in printed.out


# What is wrong with a file, and what the error says. A spoiler of a configuration gets the layers
# by name, as dicts; one of arrays gets the open file.

Layers = dict[str, dict]


def in_config(spoil: Callable[[Layers], object]) -> Callable[[h5py.File], None]:
    def spoil_file(file: h5py.File) -> None:
        config = json.loads(file.attrs["model_config"])
        layers = {layer["name"]: layer for layer in config["config"]["layers"]}
        spoil(layers)
        config["config"]["layers"] = list(layers.values())
        file.attrs["model_config"] = json.dumps(config)

    return spoil_file


def change(layer: str, **values: object) -> Callable[[h5py.File], None]:
    return in_config(lambda layers: layers[layer]["config"].update(values))


def add(kind: str, **settings: object) -> Callable[[Layers], None]:
    layer = {"name": "odd", "class_name": kind, "config": settings}
    return lambda layers: layers.update(odd=layer)


def set_class(name: str, kind: str) -> Callable[[h5py.File], None]:
    return in_config(lambda layers: layers[name].update(class_name=kind))


def nest_deeply(file: h5py.File) -> None:
    start = '{"class_name": "Sequential", "config": ['
    file.attrs["model_config"] = start * 5000 + file.attrs["model_config"] + "]}" * 5000


def set_config(text: str) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.modify("model_config", text)


KERNEL = "model_weights/block1_conv1/block1_conv1/kernel:0"
GAMMA = "model_weights/block1_conv1_bn/block1_conv1_bn/gamma:0"


def instead(name: str, make: Callable[[h5py.File], object]) -> Callable[[h5py.File], None]:
    """Takes an array away; what is made may stand in its place."""

    def spoil(file: h5py.File) -> None:
        del file[name]
        made = make(file)
        if isinstance(made, h5py.ExternalLink | h5py.SoftLink):
            file[name] = made

    return spoil


def reshaped(file: h5py.File) -> None:
    name = "model_weights/block7_sepconv1/block7_sepconv1/pointwise_kernel:0"
    del file[name]
    file.create_dataset(name, (1, 1, 728, 727), "f4")


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3, 3, 3, 32), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3, 3, 3, 32))
    file.create_virtual_dataset(KERNEL, layout)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (in_config(add("Lambda", function=["4w"])), r"unexpected layer 'odd' \(Lambda\).*not run"),
        (change("block1_conv1", strides=[1, 1]), r"block1_conv1.*strides is \[1, 1\]"),
        (change("block5_sepconv2", dilation_rate=[2, 2]), r"block5_sepconv2.*dilation_rate"),
        (change("block5_sepconv2_act", activation="elu"), r"block5_sepconv2_act.*elu"),
        (change("block1_conv1_bn", axis=[1]), r"block1_conv1_bn.*axis"),
        (change("block1_conv2_bn", epsilon=1e-5), r"differ in epsilon"),
        (change("dense_1", units=3), r"Dense\(3, softmax\)"),
        (change("dense_1", activation="sigmoid"), r"Dense\(2, sigmoid\)"),
        (change("input_1", batch_input_shape=[None, 200, 200, 1]), r"input is .*1\]"),
        (set_class("block14_sepconv1_act", "Evil>Custom"), r"unexpected layer .*Evil>Custom"),
        (set_class("dense_1", "Dropout"), r"2 classes, its configuration says 0"),
        (nest_deeply, "not that of a Keras model|is no JSON"),
        (set_config('{"class_name": "Model"}'), "not that of a Keras model"),
        (set_config('{"config": {"layers": 7}}'), "not that of a Keras model"),
        (set_config("{"), "is no JSON"),
        (set_config("[]"), "not that of a Keras model"),
        (lambda file: file.attrs.create("model_config", 3.0), "model_config holds"),
        (instead(KERNEL, lambda _: None), r"'block1_conv1' is missing; Xception has kernel"),
        (instead(GAMMA, lambda _: None), "'block1_conv1_bn' has beta.*Xception has gamma"),
        (reshaped, r"block7_sepconv1.*\[1, 1, 728, 727\], not floats \[1, 1, 728, 728\]"),
        (
            instead(GAMMA, lambda f: f.create_dataset(GAMMA, 32, h5py.special_dtype(vlen=str))),
            "block1_conv1_bn.*is object",
        ),
        (
            instead(KERNEL, lambda _: h5py.ExternalLink("/etc/passwd", "/x")),
            "'block1_conv1' is missing",
        ),
        (instead(KERNEL, lambda _: h5py.SoftLink("/model_weights/x")), "'block1_conv1' is missing"),
        (
            instead(
                KERNEL,
                lambda file: file.create_dataset(
                    KERNEL, (3, 3, 3, 32), "f4", external=[("/etc/passwd", 0, 3456)]
                ),
            ),
            "has its numbers in another file",
        ),
        (instead(KERNEL, virtual), "has its numbers in another file"),
        (
            lambda file: file.create_dataset(KERNEL.replace(":", "_1:"), (3, 3, 3, 32), "f4"),
            "block1_conv1 has two arrays called kernel",
        ),
        (
            lambda file: file.create_dataset("model_weights/x/spare/kernel:0", (3, 3, 3, 32), "f4"),
            "layer spare is not Xception's",
        ),
        (
            lambda file: file.create_dataset(KERNEL.replace("1/k", "1_7/k"), (3, 3, 3, 32), "f4"),
            "two layers can be 'block1_conv1': ",
        ),
    ],
)
def test_what_is_no_xception_is_refused_by_name(
    spoil: Callable[[h5py.File], None],
    message: str,
    hollow_file: Path,
    tmp_path: Path,
    trusting: None,
) -> None:
    with h5py.File(hollow_file, "r+") as file:
        spoil(file)
    with pytest.raises(UnreadableError, match=message) as caught:
        convert_keras(hollow_file)
    assert str(caught.value).startswith(f"{hollow_file}: ")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [hollow_file]


def as_logits(layers: Layers) -> None:
    layers["dense_1"]["config"]["activation"] = "linear"


def relu_layers(layers: Layers) -> None:
    for layer in layers.values():
        if layer["class_name"] == "Activation":
            layer.update(class_name="ReLU", config={"max_value": None, "negative_slope": 0.0})


@pytest.mark.parametrize(
    ("respell", "head"),
    [
        ((as_logits,), "linear"),
        ((as_logits, add("Activation", activation="softmax")), "softmax"),
        ((as_logits, add("Softmax", axis=-1)), "softmax"),
        ((add("Dropout", rate=0.5),), "softmax"),
        ((relu_layers,), "softmax"),
    ],
)
def test_the_same_network_spelt_otherwise(
    respell: tuple[Callable[[Layers], None], ...], head: str, hollow_file: Path, trusting: None
) -> None:
    with h5py.File(hollow_file, "r+") as file:
        for each in respell:
            in_config(each)(file)
    report = inspect_keras(hollow_file)
    assert report.head == f"Dense(2, {head})"
    assert len(report.arrays) == 236
    assert any("taken as logits" in line for line in report.notes) is (head == "linear")


def test_without_config_what_is_missing_is_named_too(
    small: list[bytes], tmp_path: Path, trusting: None
) -> None:
    path = tmp_path / "model.hdf5"
    path.write_bytes(small[1])
    with h5py.File(path, "r+") as file:
        del file["xception/block5_sepconv3_bn"]
    with pytest.raises(UnreadableError, match="'block5_sepconv3_bn' is missing"):
        convert_keras(path)


def test_without_names_keras_numbers_itself_shapes_decide(
    example: Example, tmp_path: Path, trusting: None
) -> None:
    def renamed(name: str) -> str:
        mine = {"conv2d_1": "zebra", "conv2d_2": "yak", "conv2d_3": "ox", "conv2d_4": "ant"}
        return mine.get(name, name.replace("batch_normalization_", "norm"))

    path = tmp_path / "model.hdf5"
    hollow(example, path, weights_only=True, nested="list", suffix=renamed)
    found = {array.ours: array.theirs for array in inspect_keras(path).arrays}
    assert len(found) == 236
    for i, (block, name) in enumerate({1: "zebra", 2: "yak", 3: "ox", 12: "ant"}.items(), 1):
        assert found[f"backbone.block{block}.skip.weight"] == f"xception/{name}/kernel:0"
        assert found[f"backbone.block{block}.skipbn.bias"] == f"xception/norm{i}/beta:0"


def test_a_module_beside_the_file_is_not_run(
    hollow_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("h5py.py", "json.py"):
        (tmp_path / module).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    assert len(inspect_keras(Path(hollow_file.name)).arrays) == 236
    assert not (tmp_path / "ran").exists()


def test_numbers_that_are_not_finite_are_noted(hollow_file: Path, trusting: None) -> None:
    with h5py.File(hollow_file, "r+") as file:
        file["model_weights/block1_conv1_bn/block1_conv1_bn/beta:0"][3] = np.nan
    notes = convert_keras(hollow_file).notes
    assert any("1 arrays hold numbers that are not finite" in note for note in notes)


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members.items():
            opened.writestr(name, data)
    return path


def test_archives_that_unpack_to_too_much_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = archive(tmp_path / "bomb.keras", {"config.json": b" " * (keras_files.MAX_CONFIG + 1)})
    assert bomb.stat().st_size < 1 << 16
    with pytest.raises(UnreadableError, match="unpacks to more than 16 MiB"):
        convert_keras(bomb)
    # One that lies about its size in the directory of the archive.
    size = (keras_files.MAX_CONFIG + 1).to_bytes(4, "little")
    bomb.write_bytes(bomb.read_bytes().replace(size, (100).to_bytes(4, "little")))
    with pytest.raises(UnreadableError, match=r"bomb\.keras"):
        convert_keras(bomb)
    monkeypatch.setitem(keras_files.MEMBERS, "model.weights.h5", 1 << 16)
    members = {"config.json": b"{}", "model.weights.h5": bytes(1 << 20)}
    with pytest.raises(UnreadableError, match=r"model\.weights\.h5 in the archive unpacks"):
        convert_keras(archive(tmp_path / "heavy.keras", members))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["config.json"], r"0 members called model\.weights\.h5"),
        (["model.weights.h5"], r"0 members called config\.json"),
        (["config.json", "config.json"], r"2 members called config\.json"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_incomplete_and_ambiguous_archives(names: list[str], message: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as opened:
        for name in names:
            opened.writestr(name, b"{}")
    with pytest.raises(UnreadableError, match=message):
        convert_keras(tmp_path / "a.keras")


def test_other_files_are_refused_in_one_line(
    tmp_path: Path, hollow_file: Path, capsys: pytest.CaptureFixture[str], trusting: None
) -> None:
    text = tmp_path / "text.hdf5"
    text.write_text("no model")
    whole = hollow_file.read_bytes()
    (tmp_path / "cut.hdf5").write_bytes(whole[: len(whole) // 2])
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["data"] = np.zeros(3)
    cases = {"nowhere.hdf5": 2, "text.hdf5": 1, "cut.hdf5": 1, "other.hdf5": 1}
    for name, code in cases.items():
        assert run_program(command, [str(tmp_path / name), str(tmp_path / "o.safetensors")]) == code
        printed = capsys.readouterr()
        assert not printed.out
        assert printed.err.startswith(f"deepregions: error: {tmp_path / name}")
        assert len(printed.err.splitlines()) == 1
    assert run_program(command, [str(hollow_file), str(tmp_path / "o.pt")]) == 2
    assert run_program(command, [str(hollow_file)]) == 2
    assert run_program(command, [str(text), "o", "--fake-index", "many"]) == 2
    assert not list(tmp_path.glob("o*.safetensors"))


def test_a_file_that_makes_hdf5_loop_for_ever_is_given_up(
    small: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.hdf5"
    data = bytearray(small[1])
    heap = data.index(b"GCOL")
    data[heap + 80] = 1  # the size of what is free in the heap of texts
    path.write_bytes(data)
    monkeypatch.setattr(keras_files, "TRIAL_SECONDS", 3)
    with pytest.raises(UnreadableError, match="broken"):
        inspect_keras(path)


@settings(
    max_examples=10, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    which=st.sampled_from([0, 1, 2, 2]),
    flips=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8
    ),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_whatever_happens_to_a_file_the_error_is_ours(
    which: int, flips: list[tuple[float, int]], keep: float, small: list[bytes], tmp_path: Path
) -> None:
    data = bytearray(small[which])
    for place, value in flips:
        data[int(place * len(data))] = value
    path = tmp_path / "broken"
    path.write_bytes(data[: int(keep * len(data))])
    try:
        report = inspect_keras(path)
    except DeepregionsError as error:
        assert "\n" not in str(error)
    else:
        assert len(report.arrays) == 236
