"""Train a detector of the registry on labelled images.

Small on purpose: one loop, AdamW, a cosine schedule, an average of the weights that is validated
after every epoch as `trtdet score` would see the images, and kept when it is the best so far.
Everything random is drawn from (seed, epoch), so that a resumed run ends where an uninterrupted one
does: bit for bit on a CPU, with the same number of threads.

float32 throughout: the residuals of forensic networks are differences of neighbours, often of one
level, and bfloat16 has not the digits to tell 200 from 201.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from trtdet.build.augment import augment
from trtdet.build.detectors.spec import DetectorSpec, Variant
from trtdet.build.graph import EngineModule
from trtdet.calibration.labels import LabelledImage
from trtdet.calibration.metrics import roc_auc
from trtdet.engine.atomic import atomic_bytes
from trtdet.engine.decode import DEFAULT_MAX_PIXELS, decode_rgb, quiet_decoders, read_image_file
from trtdet.engine.geometry import apply_geometry
from trtdet.engine.machine import core_count
from trtdet.engine.steps import CenterCrop
from trtdet.errors import ImageError, InputError

Rgb = NDArray[np.uint8]
StateDict = dict[str, Tensor]

_SMOOTHING = 0.05  # of the labels: a few of them are wrong in every collection
_LARGEST_GRADIENT = 2.0
_DIVERGED = "the training diverged (a loss or a logit is not finite): lower --learning-rate"
_AHEAD = 4  # batches that are prepared while one is learned from
_LOOKED_AT = 1500  # pieces, by a network that is fitted to its data before it learns


@dataclass(frozen=True)
class TrainSettings:
    """How to train; the defaults suit a few thousand images and a CPU."""

    epochs: int = 30
    patience: int = 8  # epochs without a better validation AUC before it stops
    crop: int = 128  # side of the random piece that is learned from, in pixels
    batch: int = 48
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    averaging: float = 0.99  # decay of the weights' average, per step
    seed: int = 0


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to."""

    number: int  # from 1
    loss: float
    val_auc: float
    best: bool


@dataclass
class Trained:
    """The best weights, and the way there."""

    weights: StateDict
    val_auc: float
    epochs: list[Epoch] = field(default_factory=list)


class Listener(Protocol):
    """Hears of the progress; a command's bar, or a script's log."""

    def on_step(self, done: int, total: int, loss: float) -> None:
        """After each batch of the running epoch."""

    def on_epoch(self, epoch: Epoch) -> None:
        """After each validation."""


def train(
    spec: DetectorSpec,
    variant: Variant,
    training: Sequence[LabelledImage],
    validation: Sequence[LabelledImage],
    settings: TrainSettings,
    *,
    listener: Listener,
    state: Path | None = None,
    device: str = "cpu",
) -> Trained:
    """Train `spec`'s network from scratch.

    `state`, where given, holds the run after each epoch; an existing file is resumed from. Raises
    InputError when it belongs to a run with other images or settings.
    """
    quiet_decoders()
    torch.manual_seed(settings.seed)
    # TF32 has bfloat16's trouble with residuals, in a milder form.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    run = _Run(spec, variant, settings, device)
    key = _key(spec, variant, training, validation, settings)
    if state is not None and state.is_file():
        run.restore(state, key)
    weights = _drawing_weights(training)
    labels = np.array([each.label for each in validation], np.int64)
    with ThreadPoolExecutor(core_count()) as pool:
        if run.epoch == 0:
            run.initialize(_batches(pool, spec, training, weights, settings, epoch=-1))
        while not run.finished():
            loss = run.learn(_batches(pool, spec, training, weights, settings, run.epoch), listener)
            run.judge(roc_auc(labels, run.scores(pool, validation)), loss)
            if state is not None:
                run.save(state, key)
            listener.on_epoch(run.epochs[-1])
    return Trained(run.best, run.best_auc, run.epochs)


def readable(images: Sequence[LabelledImage]) -> tuple[list[LabelledImage], list[str]]:
    """The images that decode, and a line `path: reason` for each that does not.

    Every file is decoded once, which takes less than one epoch and saves a run from one bad file.
    """
    quiet_decoders()
    with ThreadPoolExecutor(core_count()) as pool:
        reasons = list(pool.map(_refusal, images))
    kept = [each for each, reason in zip(images, reasons, strict=True) if reason is None]
    return kept, [reason for reason in reasons if reason is not None]


class _Run:
    """The network, its average, the optimiser, and the best so far."""

    def __init__(
        self, spec: DetectorSpec, variant: Variant, settings: TrainSettings, device: str
    ) -> None:
        self.spec, self.settings, self.device = spec, settings, device
        if spec.network is None:
            raise InputError(
                f"{spec.name} is a head on CLIP's tower, and only whole networks are trained here: "
                "`trtdet models` lists the others"
            )
        self.module = EngineModule(spec.network(variant), spec.normalization).to(device)
        self.average = AveragedModel(
            self.module, avg_fn=_moving_average(settings.averaging), use_buffers=True
        )
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.module, settings.weight_decay))
        self.epoch = 0
        self.epochs: list[Epoch] = []
        self.best: StateDict = {}
        self.best_auc = -math.inf

    def initialize(self, batches: Iterator[tuple[Tensor, Tensor, int, int]]) -> None:
        """Let the network look at training pieces, where its detector wants that."""
        if self.spec.initialize is None:
            return
        count = math.ceil(_LOOKED_AT / self.settings.batch)
        pieces = (
            self.module.normalize(images.to(self.device))
            for images, *_rest in itertools.islice(batches, count)
        )
        with torch.no_grad():
            self.spec.initialize(self.module.network, pieces)
        self.average.module.load_state_dict(self.module.state_dict())

    def finished(self) -> bool:
        since = 0
        for epoch in reversed(self.epochs):
            if epoch.best:
                break
            since += 1
        return self.epoch >= self.settings.epochs or since >= self.settings.patience

    def learn(
        self, batches: Iterator[tuple[Tensor, Tensor, int, int]], listener: Listener
    ) -> float:
        """One epoch. Returns its mean loss."""
        torch.manual_seed(self.settings.seed * 1_000_003 + self.epoch)  # dropout
        self.module.train()
        losses = []
        for images, labels, done, total in batches:
            self._set_learning_rate(self.epoch + (done - 0.5) / total)
            logits = self.module(images.to(self.device))[:, 0]
            target = labels.to(self.device) * (1.0 - 2.0 * _SMOOTHING) + _SMOOTHING
            loss = F.binary_cross_entropy_with_logits(logits, target)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.module.parameters(), _LARGEST_GRADIENT)
            self.optimizer.step()
            self.average.update_parameters(self.module)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise InputError(_DIVERGED)
            listener.on_step(done, total, losses[-1])
        self.epoch += 1
        return float(np.mean(losses))

    def scores(
        self, pool: ThreadPoolExecutor, images: Sequence[LabelledImage]
    ) -> NDArray[np.float64]:
        """The averaged network's logits, float64 [N], of the images as the runtime sees them."""
        self.average.eval()
        logits = []
        with torch.inference_mode():
            size = self.settings.batch if self.spec.geometry.height else 1
            for first in range(0, len(images), size):
                part = images[first : first + size]
                rgb = list(pool.map(lambda each: _as_scored(self.spec, each), part))
                batch = torch.from_numpy(np.stack(rgb)).to(self.device)
                logits.append(self.average(batch)[:, 0].cpu().numpy())
        scores = np.concatenate(logits).astype(np.float64)
        if not np.isfinite(scores).all():
            raise InputError(_DIVERGED)
        return scores

    def judge(self, val_auc: float, loss: float) -> None:
        """Keep the averaged weights if they are the best so far."""
        best = val_auc > self.best_auc
        if best:
            tensors = self.average.module.get_submodule("network").state_dict()
            self.best = {key: value.cpu().clone() for key, value in tensors.items()}
            self.best_auc = val_auc
        self.epochs.append(Epoch(self.epoch, loss, val_auc, best))

    def save(self, path: Path, key: str) -> None:
        """Write everything that goes on from here."""
        content = {
            "key": key,
            "epoch": self.epoch,
            "epochs": [asdict(each) for each in self.epochs],
            "best": self.best,
            "best_auc": self.best_auc,
            "average": self.average.state_dict(),
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        # On another thread: a Ctrl-C inside torch.save would come out as an error of its archive.
        with atomic_bytes(path) as file, ThreadPoolExecutor(1) as writer:
            writer.submit(torch.save, content, file).result()

    def restore(self, path: Path, key: str) -> None:
        """Take up what `save` wrote."""
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch promises no list, as in `checkpoint`
            raise InputError(f"{path} cannot be read ({error}): delete it to start over") from error
        if content.get("key") != key:
            raise InputError(
                f"{path} belongs to a training with other images, settings or another detector: "
                "give those again, or delete it to start over"
            )
        self.epoch = content["epoch"]
        self.epochs = [Epoch(**each) for each in content["epochs"]]
        self.best, self.best_auc = content["best"], content["best_auc"]
        self.average.load_state_dict(content["average"])
        self.module.load_state_dict(content["module"])
        self.optimizer.load_state_dict(content["optimizer"])

    def _set_learning_rate(self, epochs_done: float) -> None:
        """A rise over the first twentieth of all epochs, then half a cosine down to nothing."""
        share = epochs_done / self.settings.epochs
        factor = min(1.0, share / 0.05) * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * factor


def _moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """An exponential average that forgets its random start; whole numbers are taken over."""

    def averaged(average: Tensor, value: Tensor, count: Tensor | int) -> Tensor:
        if not value.is_floating_point():
            return value
        weight = min(decay, (1.0 + int(count)) / (10.0 + int(count)))
        return torch.lerp(value, average, weight)

    return averaged


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay for matrices and kernels alone: not for biases and normalisation."""
    parameters = list(module.parameters())
    return [
        {"params": [each for each in parameters if each.dim() > 1], "weight_decay": weight_decay},
        {"params": [each for each in parameters if each.dim() <= 1], "weight_decay": 0.0},
    ]


def _drawing_weights(images: Sequence[LabelledImage]) -> NDArray[np.float64]:
    """How likely each image is drawn: both classes alike, large sources less than their share.

    Within a class a source counts by the square root of its size, so that one large collection does
    not decide what real, or synthetic, looks like.
    """
    sizes = Counter((each.label, each.source) for each in images)
    weights = np.array([sizes[each.label, each.source] ** -0.5 for each in images])
    labels = np.array([each.label for each in images])
    for label in (0, 1):
        weights[labels == label] /= 2.0 * weights[labels == label].sum()
    return np.asarray(weights / weights.sum())


def _batches(
    pool: ThreadPoolExecutor,
    spec: DetectorSpec,
    images: Sequence[LabelledImage],
    weights: NDArray[np.float64],
    settings: TrainSettings,
    epoch: int,
) -> Iterator[tuple[Tensor, Tensor, int, int]]:
    """An epoch's batches (uint8 [N, H, W, 3], float32 [N]), each with its number and their count.

    A few batches are prepared ahead on the pool's threads.
    """
    rng = np.random.default_rng([settings.seed, 1 + epoch])
    total = max(1, len(images) // settings.batch)
    drawn = rng.choice(len(images), (total, settings.batch), p=weights)

    def submit(number: int) -> list[Any]:
        return [
            pool.submit(_augmented, spec, images[index], settings, (1 + epoch, number, place))
            for place, index in enumerate(drawn[number])
        ]

    waiting = [submit(number) for number in range(min(_AHEAD, total))]
    for number in range(total):
        pieces = np.stack([future.result() for future in waiting.pop(0)])
        if number + _AHEAD < total:
            waiting.append(submit(number + _AHEAD))
        labels = [float(images[index].label) for index in drawn[number]]
        yield torch.from_numpy(pieces), torch.tensor(labels), number + 1, total


def _augmented(
    spec: DetectorSpec, image: LabelledImage, settings: TrainSettings, place: tuple[int, ...]
) -> Rgb:
    # A detector that crops reads native pixels, so any part will do; one that resizes has a scale.
    crops = all(isinstance(step, CenterCrop) for step in spec.geometry.steps)
    rgb = _decode(image) if crops else _as_scored(spec, image)
    return augment(rgb, np.random.default_rng([settings.seed, *place]), settings.crop)


def _as_scored(spec: DetectorSpec, image: LabelledImage) -> Rgb:
    return np.asarray(apply_geometry(spec.geometry, _decode(image))[0], np.uint8)


def _decode(image: LabelledImage) -> Rgb:
    try:
        return decode_rgb(read_image_file(image.path), max_pixels=DEFAULT_MAX_PIXELS)
    except ImageError as error:
        raise ImageError(f"{image.path}: {error}") from error


def _refusal(image: LabelledImage) -> str | None:
    try:
        _decode(image)
    except ImageError as error:
        return str(error)
    return None


def _key(
    spec: DetectorSpec,
    variant: Variant,
    training: Sequence[LabelledImage],
    validation: Sequence[LabelledImage],
    settings: TrainSettings,
) -> str:
    """What a saved state belongs to."""
    rows = [
        [(str(each.path), each.label, each.source) for each in part]
        for part in (training, validation)
    ]
    record = [spec.name, variant.name, asdict(settings), rows]
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()
