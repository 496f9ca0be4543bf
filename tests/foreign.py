"""Networks as other programs build and save them, and what those programs compute.

Written for the tests from the papers and the formats, apart from the package's own networks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import timm
import torch
from timm.models.xception import Block, SeparableConv2d
from torch import Tensor, nn


def settle(network: nn.Module, seed: int = 0) -> nn.Module:
    """Random statistics for batch normalisation, so that a wrong epsilon or order would show."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for value, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.2, 0.2),
                (module.running_mean, -0.1, 0.1),
                (module.running_var, 0.02, 0.2),
            ):
                value.copy_(torch.rand(value.shape, generator=generator) * (high - low) + low)
    return network.eval()


def pictures(size: int, count: int = 1, seed: int = 0) -> Tensor:
    """(N, 3, S, S) float32 in [0, 1], as of 8 bits; brighter to the right, and rather red."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand((count, 3, size, size), generator=generator)
    shade = torch.tensor([1.0, 0.7, 0.4])[:, None, None] * torch.linspace(0.2, 1.0, size)
    return (noise * shade * 255).floor() / 255


class CadeneXception(nn.Module):
    """Cadene's Xception: timm's network, whose last layer has another name."""

    def __init__(self, classes: int = 2, *, dropout: bool = False) -> None:
        super().__init__()
        network = timm.create_model("legacy_xception", num_classes=0)
        for name, child in network.named_children():
            if name not in ("global_pool", "fc"):
                self.add_module(name, child)
        linear = nn.Linear(2048, classes)
        self.last_linear = nn.Sequential(nn.Dropout(0.5), linear) if dropout else linear
        self.features = [network]  # not a child: it is the same layers again

    def forward(self, x: Tensor) -> Tensor:
        return self.last_linear(self.features[0].forward_features(x).mean((2, 3)))


class TransferModel(nn.Module):
    """FaceForensics++'s wrapper."""

    def __init__(self, *, dropout: bool = False) -> None:
        super().__init__()
        self.modelchoice = "xception"
        self.model = CadeneXception(dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


@contextmanager
def posing(classes: dict[type, str]) -> Iterator[None]:
    """Lets classes pass as those of modules that are not installed, as long as it takes to save."""
    before = {cls: cls.__module__ for cls in classes}
    made = []
    try:
        for cls, module in classes.items():
            for name in (module[: i or None] for i in (*_dots(module), 0)):
                if name not in sys.modules:
                    sys.modules[name] = ModuleType(name)
                    made.append(name)
            setattr(sys.modules[module], cls.__name__, cls)
            cls.__module__ = module
        yield
    finally:
        for cls, module in before.items():
            cls.__module__ = module
        for name in made:
            del sys.modules[name]


def _dots(name: str) -> list[int]:
    return [i for i, letter in enumerate(name) if letter == "."]


FACE_FORENSICS = {
    TransferModel: "network.models",
    CadeneXception: "network.xception",
    Block: "network.xception",
    SeparableConv2d: "pretrainedmodels.models.xception",
}


def vgg_features() -> nn.Sequential:
    """VGG-19's first 19 layers."""
    layers: list[nn.Module] = []
    before = 3
    for width, count in ((64, 2), (128, 2), (256, 4)):
        for _ in range(count):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            nn.init.kaiming_normal_(layers[-2].weight, nonlinearity="relu")
            before = width
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


def capsule_parts() -> nn.ModuleList:
    return nn.ModuleList(
        nn.ModuleDict(
            {
                "0": nn.Conv2d(256, 64, 3, padding=1),
                "1": nn.BatchNorm2d(64),
                "3": nn.Conv2d(64, 16, 3, padding=1),
                "4": nn.BatchNorm2d(16),
                "7": nn.Conv1d(2, 8, 5, stride=2, padding=2),
                "8": nn.BatchNorm1d(8),
                "9": nn.Conv1d(8, 1, 3, padding=1),
                "10": nn.BatchNorm1d(1),
            }
        )
        for _ in range(10)
    )


def squashed(x: Tensor, dim: int) -> Tensor:
    squared = x.square().sum(dim, keepdim=True)
    return squared / (1 + squared) * x / squared.sqrt()


def primary_capsules(parts: nn.ModuleList, features: Tensor) -> Tensor:
    """(N, capsules, 8) of a feature map, capsule by capsule, squashed over the capsules."""
    outputs = []
    for part in parts:
        x = part["1"](part["0"](features)).relu()
        x = part["4"](part["3"](x)).relu().flatten(2)
        x = torch.stack([x.mean(2), x.std(2)], dim=1)
        outputs.append(part["10"](part["9"](part["8"](part["7"](x)))).flatten(1))
    return squashed(torch.stack(outputs, dim=1), dim=1)


class ForeignCapsule(nn.Module):
    """Capsule-Forensics-v2, capsule by capsule and iteration by iteration."""

    def __init__(self, classes: int = 2, *, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.vgg = vgg_features()
        self.capsules = capsule_parts()
        self.route_weights = nn.Parameter(torch.randn(classes, 10, 4, 8))
        settle(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the program calls class_: the mean probability (N, classes)."""
        u = primary_capsules(self.capsules, self.vgg(x))  # (N, from, 8)
        priors = torch.einsum("cfon,bfn->bcfo", self.route_weights, u)
        logits = torch.zeros_like(priors)
        for iteration in range(2):
            v = squashed((logits.softmax(2) * priors).sum(2, keepdim=True), dim=3)
            if iteration == 0:
                logits = logits + priors * v
        z = v.squeeze(2).transpose(2, 1)  # (N, 4, classes)
        return z.softmax(-1).mean(1)

    def saved(self, *, vgg: str | None = None, prefix: str = "") -> dict[str, Tensor]:
        """The state dict as programs save it; ``vgg`` is what VGG's names begin with, if saved."""
        state = {f"fea_ext.capsules.{k}": v for k, v in self.capsules.state_dict().items()}
        state["routing_stats.route_weights"] = self.route_weights.data
        if vgg is not None:
            state |= {f"{vgg}{k}": v for k, v in self.vgg.state_dict().items()}
        return {f"{prefix}{key}": value for key, value in state.items()}

    def saved_vgg(self) -> dict[str, Tensor]:
        """VGG-19 in torchvision's names."""
        return {f"features.{key}": value for key, value in self.vgg.state_dict().items()}


class ForeignSPPNet(nn.Module):
    """DSP-FWA: ResNet-50, pyramid of three levels, linear layer; colours as OpenCV has them."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.resnet = timm.create_model("resnet50", num_classes=0, global_pool="")
        self.classifier = nn.Linear(2048 * 41, 2)
        settle(self, seed)
        for name, module in self.resnet.named_modules():  # else maps grow without end
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.mul_(20)
                module.weight.data.mul_(0.3 if name.endswith("bn3") else 1.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnet(x)
        side = x.shape[-1]
        levels = [
            nn.functional.max_pool2d(x, -(-side // bins), side // bins).flatten(1)
            for bins in (1, 2, 6)
        ]
        return self.classifier(torch.cat(levels, dim=1))

    def saved(self, prefix: str = "") -> dict[str, Tensor]:
        state = {f"resnet.resnet.{k}": v for k, v in self.resnet.state_dict().items()}
        state |= {f"classifier.{k}": v for k, v in self.classifier.state_dict().items()}
        state |= {"resnet.resnet.fc.weight": torch.zeros(1000, 2048)}
        state |= {"resnet.fc.weight": torch.zeros(2, 2048), "resnet.fc.bias": torch.zeros(2)}
        return {f"{prefix}{key}": value for key, value in state.items()}
