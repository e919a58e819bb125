"""Detection, segmentation, restoration, autoencoders and generators."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from zoo_networks.network import ZooNetwork, conv, floats

IMAGE = floats((3, 32, 32))


class YoloHead(nn.Module):
    """Boxes of two scales decoded with grids and anchors (YOLOv5)."""

    anchors: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        act = nn.SiLU
        self.stem = nn.Sequential(
            conv(3, 8, 3, 2, activation=act()), conv(8, 16, 3, 2, activation=act())
        )
        self.deep = conv(16, 32, 3, 2, activation=act())
        self.lateral = conv(48, 16, 1, activation=act())
        self.heads = nn.ModuleList((nn.Conv2d(16, 14, 1), nn.Conv2d(32, 14, 1)))
        self.register_buffer("anchors", torch.tensor([[4.0, 6.0], [8.0, 5.0]]))

    def decoded(self, y: torch.Tensor, stride: int) -> torch.Tensor:
        n, _, h, w = y.shape
        y = y.view(n, 2, 7, h, w).permute(0, 1, 3, 4, 2).contiguous()
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        grid = torch.stack((columns, rows), 2).view(1, 1, h, w, 2).to(y.dtype)
        xy, wh, rest = y.sigmoid().split((2, 2, 3), 4)
        xy = (xy * 2 - 0.5 + grid) * stride
        wh = (wh * 2) ** 2 * self.anchors.view(1, 2, 1, 1, 2)
        return torch.cat((xy, wh, rest), 4).view(n, -1, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.stem(x)
        b = self.deep(a)
        up = functional.interpolate(b, scale_factor=2, mode="nearest")
        a = self.lateral(torch.cat((a, up), 1))
        return torch.cat((self.decoded(self.heads[0](a), 4), self.decoded(self.heads[1](b), 8)), 1)


class AnchorFree(nn.Module):
    """Distances as expectations over bins, classes apart, two outputs (YOLOv8, GFL)."""

    bins: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv(3, 16, 3, 4, activation=nn.SiLU()), conv(16, 16, 3, 2, activation=nn.SiLU())
        )
        self.boxes, self.classes = nn.Conv2d(16, 32, 1), nn.Conv2d(16, 5, 1)
        self.register_buffer("bins", torch.arange(8.0))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.stem(x)
        boxes = self.boxes(y).view(-1, 4, 8, 16).transpose(1, 2).softmax(1)
        boxes = functional.conv2d(boxes, self.bins.view(1, 8, 1, 1)).view(-1, 4, 16)
        return {"boxes": boxes, "classes": self.classes(y).flatten(2).sigmoid()}


class Ssd(nn.Module):
    """Boxes and classes of two feature maps side by side, reshaped to lists."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (
            conv(3, 16, 3, 4, activation=nn.ReLU6()),
            conv(16, 24, 3, 2, activation=nn.ReLU6()),
        )
        self.boxes = nn.ModuleList((nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(24, 8, 3, padding=1)))
        self.classes = nn.ModuleList(
            (nn.Conv2d(16, 6, 3, padding=1), nn.Conv2d(24, 6, 3, padding=1))
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = [self.one(x)]
        maps.append(self.two(maps[0]))
        boxes = [c(m).permute(0, 2, 3, 1).flatten(1) for c, m in zip(self.boxes, maps, strict=True)]
        classes = [
            c(m).permute(0, 2, 3, 1).flatten(1) for c, m in zip(self.classes, maps, strict=True)
        ]
        return torch.cat(boxes, 1).view(-1, 160, 4), torch.cat(classes, 1).view(-1, 160, 3)


def fomo() -> nn.Module:
    return nn.Sequential(
        conv(1, 8, 3, 2, activation=nn.ReLU6()), conv(8, 8, 3, 2, 8, nn.ReLU6()),
        conv(8, 16, 1, activation=nn.ReLU6()), conv(16, 16, 1, activation=nn.ReLU()),
        nn.Conv2d(16, 3, 1), nn.Softmax(1),
    )  # fmt: skip


class Unet(nn.Module):
    """Two levels; upwards by transposed convolution, nearest or bilinear upsampling."""

    def __init__(self, up: str) -> None:
        super().__init__()
        self.down1, self.down2 = conv(3, 8, activation=nn.ReLU()), conv(8, 16, activation=nn.ReLU())
        self.inner = conv(16, 16, activation=nn.ReLU())
        self.up = (
            nn.ConvTranspose2d(16, 8, 2, 2)
            if up == "transposed"
            else nn.Sequential(
                nn.Upsample(
                    scale_factor=2, mode=up, align_corners=True if up == "bilinear" else None
                ),
                nn.Conv2d(16, 8, 3, padding=1),
            )
        )
        self.merge, self.last = conv(16, 8, activation=nn.ReLU()), nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.down1(x)
        b = self.inner(self.down2(functional.max_pool2d(a, 2)))
        return self.last(self.merge(torch.cat((a, self.up(b)), 1)))


class Aspp(nn.Module):
    """Dilated convolutions side by side, image means broadcast back (DeepLabV3)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16, 3, 4, activation=nn.ReLU())
        self.rates = nn.ModuleList(
            nn.Conv2d(16, 8, 3, padding=rate, dilation=rate) for rate in (1, 2, 3)
        )
        self.image, self.project = nn.Conv2d(16, 8, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        means = torch.relu(self.image(functional.adaptive_avg_pool2d(y, 1)))
        means = functional.interpolate(
            means, size=y.shape[-2:], mode="bilinear", align_corners=False
        )
        y = torch.cat([torch.relu(rate(y)) for rate in self.rates] + [means], 1)
        return functional.interpolate(
            self.project(y), scale_factor=4, mode="bilinear", align_corners=False
        )


def super_resolution() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.Tanh(), nn.Conv2d(16, 16, 3, padding=1), nn.Tanh(),
        nn.Conv2d(16, 4, 3, padding=1), nn.PixelShuffle(2), nn.Hardtanh(0, 1),
    )  # fmt: skip


class Denoiser(nn.Module):
    """DnCNN: noise is estimated and taken off; edges are reflected."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(1, 8, 3), nn.ReLU(), conv(8, 8, activation=nn.ReLU()),
            nn.Conv2d(8, 1, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - self.body(x)


class Landmarks(nn.Module):
    """Expected places of heat maps (soft arg-max)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.maps = conv(1, 16, 3, 2, activation=nn.ELU()), nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.maps(self.one(x))
        n, k, h, w = y.shape
        p = y.view(n, k, -1).softmax(-1).view(n, k, h, w)
        rows = torch.linspace(-1, 1, h)
        return torch.stack(((p.sum(2) * rows).sum(-1), (p.sum(3) * rows).sum(-1)), -1)


def dense_autoencoder() -> nn.Module:
    parts: list[nn.Module] = []
    sizes = (64, 32, 32, 8, 32, 32)
    for i, o in pairwise(sizes):
        parts += [nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(32, 64))


class Vae(nn.Module):
    """Encoder and decoder over the mean of the code."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.mean, self.log_variance = nn.Linear(784, 8), nn.Linear(784, 8)
        self.back = nn.Linear(8, 784)
        self.up1, self.up2 = nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.ConvTranspose2d(8, 1, 4, 2, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y = torch.relu(self.two(torch.relu(self.one(x)))).flatten(1)
        mean, spread = self.mean(y), self.log_variance(y)
        y = torch.relu(self.back(mean)).view(-1, 16, 7, 7)
        return torch.sigmoid(self.up2(torch.relu(self.up1(y)))), mean, spread


def generator() -> nn.Module:
    parts: list[nn.Module] = [nn.Unflatten(1, (16, 1, 1))]
    for i, o, k, s, p in ((16, 32, 4, 1, 0), (32, 16, 4, 2, 1)):
        parts += [nn.ConvTranspose2d(i, o, k, s, p, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
    return nn.Sequential(*parts, nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh())


class StyleTransfer(nn.Module):
    """Instance norms, reflected edges, a residual block, upsampling (Johnson et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.down = nn.Conv2d(3, 8, 9), nn.Conv2d(8, 16, 3, 2)
        self.norms = nn.ModuleList(nn.InstanceNorm2d(c, affine=True) for c in (8, 16, 16, 8))
        self.res, self.up, self.last = (
            nn.Conv2d(16, 16, 3), nn.Conv2d(16, 8, 3), nn.Conv2d(8, 3, 9),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def reflected(y: torch.Tensor, by: int) -> torch.Tensor:
            return functional.pad(y, (by, by, by, by), mode="reflect")

        y = torch.relu(self.norms[0](self.one(reflected(x, 4))))
        y = torch.relu(self.norms[1](self.down(reflected(y, 1))))
        y = y + self.norms[2](self.res(reflected(y, 1)))
        y = functional.interpolate(y, scale_factor=2.0)
        y = torch.relu(self.norms[3](self.up(reflected(y, 1))))
        return self.last(reflected(y, 4))


DETECTION, PIXELS, CODES = "detection", "dense", "autoencoder, generator"
NETWORKS = (
    ZooNetwork(DETECTION, "yolo_anchors", YoloHead, IMAGE, 6, "2 + deep, lateral + 2 heads"),
    ZooNetwork(DETECTION, "yolo_anchor_free", AnchorFree, IMAGE, 5, "2 + 2 heads + bins"),
    ZooNetwork(DETECTION, "ssd", Ssd, IMAGE, 6, "2 + 4 heads"),
    ZooNetwork(DETECTION, "fomo", fomo, floats((1, 48, 48)), 5, "5"),
    ZooNetwork(DETECTION, "landmarks", Landmarks, floats((1, 32, 32)), 2, "2"),
    ZooNetwork(PIXELS, "unet_transposed", lambda: Unet("transposed"), IMAGE, 6, "3 + up + 2"),
    ZooNetwork(PIXELS, "unet_nearest", lambda: Unet("nearest"), IMAGE, 6, "3 + up + 2"),
    ZooNetwork(PIXELS, "unet_bilinear", lambda: Unet("bilinear"), IMAGE, 6, "3 + up + 2"),
    ZooNetwork(PIXELS, "deeplab_aspp", Aspp, IMAGE, 6, "stem + 3 + image + project"),
    ZooNetwork(PIXELS, "super_resolution", super_resolution, floats((1, 16, 16)), 3, "3"),
    ZooNetwork(PIXELS, "denoiser", Denoiser, floats((1, 24, 24)), 3, "3"),
    ZooNetwork(PIXELS, "style_transfer", StyleTransfer, IMAGE, 5, "2 + res + up + last"),
    ZooNetwork(CODES, "dense_autoencoder", dense_autoencoder, floats((64,)), 6, "6"),
    ZooNetwork(CODES, "vae", Vae, floats((1, 28, 28)), 7, "2 + 3 + 2"),
    ZooNetwork(CODES, "dcgan_generator", generator, floats((16,)), 3, "3"),
)
