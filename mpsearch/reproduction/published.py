"""What the TinyM²Net paper prints, to stand beside what is measured here.

Rashid et al., "TinyM²Net", tinyML Research Symposium 2022, arXiv 2202.04303, Tables 4 and 5,
sections 5.1.2 and 5.2.2 (single inputs). Where table and text disagree, both are kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass

FLOAT = "FP32"
W8, MIXED, W4 = "W8A8", "W4/8A4/8", "W4A4"


@dataclass(frozen=True)
class Published:
    """Accuracy in percent and size in KB of one row; None where the paper prints no figure."""

    accuracy: float | None
    kilobytes: float | None
    note: str = ""


@dataclass(frozen=True)
class PublishedDevice:
    """Table 5: seconds of the whole process by `time`, Python and its framework included, and the
    peak of a power meter above idle, on a Raspberry Pi 4 (4 x Cortex-A72)."""

    title: str
    process_s: float
    peak_minus_idle_mw: float


DEVICES = (
    PublishedDevice("paper, COVID-19", 1.2, 798),
    PublishedDevice("paper, battlefield", 1.7, 959),
)


@dataclass(frozen=True)
class Case:
    """One case study: our network and substitute data, the paper's relative budget, its rows.

    `budget` is the mixed network's size as a part of the uniform 8-bit size. `folds`: runs are
    cross-validation folds instead of seeds. `augment`: training samples are changed at random; not
    where the label is how loud and fast something is, which the changes would hide. `epochs` and
    `finetune_epochs` are what the command takes unless told. `substitute` says what stands in for
    the paper's data; None for a user's own. `rows`: the paper's figures by network, those of single
    inputs as far as it prints them.
    """

    network: str
    dataset: str
    budget: float
    folds: bool
    augment: bool
    epochs: int
    finetune_epochs: int
    substitute: str | None
    rows: Mapping[str, Published]


CASES = {
    "battlefield": Case(
        network="tinym2net-battlefield",
        dataset="image-audio",
        budget=0.661,
        folds=False,
        augment=True,
        epochs=30,
        finetune_epochs=8,
        substitute="CIFAR-10 images and ESC-10 sounds of four classes, paired by class",
        rows={
            "image alone": Published(93.6, None, "3.9 below the 97.5 of its text"),
            FLOAT: Published(98.5, 1605),
            W8: Published(97.9, 407),
            MIXED: Published(96.8, 269, "97.5 in its text"),
            W4: Published(91.3, 205, "88.7 in its text"),
        },
    ),
    "covid": Case(
        network="tinym2net-covid",
        dataset="cough-speech",
        budget=0.671,
        folds=True,
        augment=False,
        epochs=12,
        finetune_epochs=4,
        substitute="Coswara coughs and speech; the label is effort, not COVID",
        rows={
            "cough alone": Published(73.9, None, "a baseline that it cites"),
            "speech alone": Published(72.1, None, "a baseline that it cites"),
            FLOAT: Published(90.4, 845),
            W8: Published(89.6, 216, "its layers take 116.7 KB"),
            MIXED: Published(88.4, 145),
            W4: Published(83.6, 107, "its layers take 58.3 KB"),
        },
    ),
}
