"""Capsule-Forensics, version 2 (Nguyen, Yamagishi and Echizen 2019, arXiv 1910.12467)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepregions.detectors.base import (
    Attention,
    LRSchedulerCallable,
    Normalisation,
    OptimizerCallable,
    RegionDetector,
)
from deepregions.errors import UsageError

CAPSULES = 10
WIDTH = 8  # numbers in a primary capsule's output
ITERATIONS = 2
NOISE = 0.01
DROPOUT = 0.05


def squash(x: Tensor, dim: int) -> Tensor:
    """Shrinks vectors to a length below 1, keeping their direction; 0 stays 0.

    ``x |x| / (1 + |x|^2)``, which unlike the usual way to write it does not divide by the length,
    so that value and gradient are finite at 0.
    """
    length: Tensor = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x * (length / (1.0 + length.square()))


def vgg_trunk() -> nn.Sequential:
    """Returns VGG-19's layers up to the third pooling, frozen: (N, 3, S, S) to (N, 256, S/8, S/8).

    Its layers are numbered as in torchvision and timm. Random until weights are loaded.
    """
    import timm  # noqa: PLC0415 - seconds

    with torch.device("meta"):  # the 120 million weights of its classifier are not wanted
        features = timm.create_model("vgg19").get_submodule("features")
    trunk = nn.Sequential(*list(features.children())[:19]).to_empty(
        device=torch.get_default_device()
    )
    for layer in trunk:
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return trunk.requires_grad_(False)


class PrimaryCapsules(nn.Module):
    """Ten small networks on one feature map, computed side by side as grouped convolutions.

    Each reduces the map to 16 channels, takes their means and standard deviations, and turns
    these into 8 numbers. Channels are in the order of the capsules.
    """

    def __init__(self) -> None:
        super().__init__()
        n = CAPSULES
        self.conv1 = nn.Conv2d(256, 64 * n, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(64 * n)
        self.conv2 = nn.Conv2d(64 * n, 16 * n, 3, padding=1, groups=n)
        self.bn2 = nn.BatchNorm2d(16 * n)
        self.conv3 = nn.Conv1d(2 * n, 8 * n, 5, stride=2, padding=2, groups=n)
        self.bn3 = nn.BatchNorm1d(8 * n)
        self.conv4 = nn.Conv1d(8 * n, n, 3, padding=1, groups=n)
        self.bn4 = nn.BatchNorm1d(n)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, capsules, 8) float32 of a map (N, 256, H, W) of more than one pixel.

        The squashing runs over the capsules, as in the original, not over their 8 numbers.
        """
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x))).float()
        statistics = [x.mean((2, 3)), x.std((2, 3))]  # unbiased, like the original
        x = torch.stack([s.reshape(-1, CAPSULES, 16) for s in statistics], dim=2).flatten(1, 2)
        x = self.bn4(self.conv4(self.bn3(self.conv3(x.to(self.conv3.weight.dtype)))))
        return squash(x.float(), dim=1)


class Routing(nn.Module):
    """Dynamic routing of the primary capsules to one output capsule per class.

    Agreement is weighed for each of the 4 components of an output by itself, as in the original.
    Everything here is small and stays float32: products are written as sums, which mixed
    precision leaves alone.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        weight = torch.randn(classes, CAPSULES, 4, WIDTH)  # class, from, to, number
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the output capsules (N, 4, classes) of (N, capsules, 8)."""
        weight = self.weight.float()
        if self.training:
            weight = weight + NOISE * torch.randn_like(weight)
        votes = (weight * x[:, None, :, None, :]).sum(-1)  # (N, class, from, to)
        if self.training:  # not scaled up for what is dropped, as in the original
            votes = votes * (torch.rand_like(votes) >= DROPOUT)
        agreement = torch.zeros_like(votes)
        for last in [False] * (ITERATIONS - 1) + [True]:
            output = squash((agreement.softmax(2) * votes).sum(2), dim=-1)
            if not last:
                agreement = agreement + votes * output[:, :, None]
        return output.transpose(1, 2)


class Capsule(RegionDetector):
    """Capsule-Forensics: VGG-19's first layers, ten primary capsules, dynamic routing.

    VGG is not trained, as in the original, whose optimizer was not given its parameters. As output
    capsules are shorter than 1, log-odds are within (-1, 1): right in their order, but
    not to be read as probabilities before calibration.

    Args:
        size: Height and width of the crops, at least 16.
        double_softmax: Scores as the paper's program gives them: it takes a softmax of
            probabilities, which keeps their order but squeezes them into [0.387, 0.613].
        normalisation: What VGG was given in training: ``centred`` in DeepfakeBench.
        frozen: Leave VGG as it is. Without weights of others it is random, and must learn too.
        classes: The first is genuine, all others are kinds of fakes; log-odds are those of any
            fake. More than 2 is for checkpoints of the original's multi-class training.
        pretrained: Take VGG from timm's ``vgg19.tv_in1k``, trained on ImageNet.
        backbone_file: Take it from this file (safetensors or torch), or a bundle's, instead.
        optimizer: Makes the optimizer of the parameters that it is given.
        lr_scheduler: Makes the scheduler of the optimizer; stepped once an epoch.

    Raises:
        UsageError: The size or the number of classes is too small, or the file is not there.
        UnreadableError: The file does not hold the weights of this network.
        AssetError: The pretrained weights cannot be fetched.
    """

    name = "capsule"
    minimum_size = 16  # a map of 2x2, the least that has a standard deviation

    def __init__(
        self,
        size: int = 200,
        *,
        double_softmax: bool = False,
        normalisation: Normalisation = "imagenet",
        frozen: bool = True,
        classes: int = 2,
        pretrained: bool = False,
        backbone_file: str | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(
            size=size,
            normalisation=normalisation,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            double_softmax=double_softmax,
            classes=classes,
        )
        if classes < 2:
            raise UsageError(f"Capsule cannot tell {classes} class from others", "give 2 or more")
        self.double_softmax = double_softmax
        self.frozen = frozen
        self.trunk = vgg_trunk().requires_grad_(not frozen)
        self.capsules = nn.Sequential(PrimaryCapsules(), Routing(classes))
        if pretrained or backbone_file:
            from deepregions.detectors.pretrained import load_backbone  # noqa: PLC0415 - seconds

            load_backbone(self.trunk, "vgg19.tv_in1k", backbone_file, "features.", "trunk.")
        self.train(self.training)

    @property
    def head(self) -> nn.Module:
        """The capsules: everything that the original trains."""
        return self.capsules

    @property
    def attention(self) -> Attention:
        """VGG's map that enters the capsules, after three halvings of 2x2 pixels."""
        return Attention(self.trunk, 3.5, 8)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Returns the parameters of the capsules, and of VGG if it is not frozen."""
        return list((self.capsules if self.frozen else self).parameters())

    def train(self, mode: bool = True) -> Capsule:
        """Sets training mode, in which a frozen VGG stays as it is."""
        super().train(mode)
        self.trunk.train(mode and not self.frozen)
        return self

    def network(self, x: Tensor) -> Tensor:
        """Returns the output capsules (N, 4, classes), the first genuine, of (N, 3, S, S)."""
        scores: Tensor = self.capsules(self.trunk(x))
        return scores

    def log_odds(self, scores: Tensor) -> Tensor:
        """Returns the log-odds (N,) of any fake against genuine.

        The original's probability of a class is the mean, over 4 components, of its softmax; that
        of any fake is the sum over the kinds. With ``double_softmax`` these probabilities go
        through a softmax again before they are added.
        """
        if self.double_softmax:
            probability = scores.softmax(-1).mean(1)
            return probability[:, 1:].logsumexp(1) - probability[:, 0]
        margin = _margin(scores)
        fake, genuine = functional.logsigmoid(margin), functional.logsigmoid(-margin)
        return fake.logsumexp(1) - genuine.logsumexp(1)

    def score_losses(self, scores: Tensor, label: Tensor) -> Tensor:
        """Returns the sum (N,) over 4 components of the cross entropies of any fake.

        As output capsules are shorter than 1, with two classes it cannot go below
        4 ln(1 + 1/e) = 1.253.
        """
        margin = _margin(scores)
        target = label[:, None].to(margin.dtype).expand_as(margin)
        losses = functional.binary_cross_entropy_with_logits(margin, target, reduction="none")
        return losses.sum(1)


def _margin(scores: Tensor) -> Tensor:
    """Returns the log-odds (N, 4) of any fake, by component, of scores (N, 4, classes)."""
    return scores[..., 1:].logsumexp(-1) - scores[..., 0]
