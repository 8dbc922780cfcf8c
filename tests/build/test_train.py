"""Training on drawn images: real ones have noise, synthetic ones have none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import read_rows, refusal, run_trtdet, write_rows
from trtdet.build.checkpoint import load_into, load_state_dict
from trtdet.build.detectors.registry import detectors, find_detector, find_variant
from trtdet.build.train import TrainSettings, readable, train
from trtdet.calibration.labels import read_labels, split_images
from trtdet.errors import InputError

SMALL = TrainSettings(epochs=3, crop=32, batch=12, patience=3)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty images of 64 px in two sources."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(1)
    lines = ["filename,label,source"]
    for number in range(80):
        label = number % 2
        small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC))
        noisy = np.clip(smooth + rng.normal(0, 0 if label else 12, smooth.shape), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{label},source {number % 3}")
    path = folder / "labels.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


class Heard:
    """A listener that remembers, and can stop the run as a signal would."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.epochs: list = []
        self.stop_after = stop_after

    def on_step(self, done, total, loss) -> None:
        assert 1 <= done <= total

    def on_epoch(self, epoch) -> None:
        self.epochs.append(epoch)
        if epoch.number == self.stop_after:
            raise KeyboardInterrupt


def run(labels: Path, settings=SMALL, model="cooccurrence", listener=None, state=None):
    spec = find_detector(model)
    training, validation = split_images(read_labels(labels), seed=settings.seed)
    variant = spec.variants[-1]
    listener = listener or Heard()
    return train(spec, variant, training, validation, settings, listener=listener, state=state)


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_it_learns_repeats_and_resumes_to_the_same_bits(labels, tmp_path):
    first = run(labels)
    assert first.val_auc > 0.9
    assert [epoch.number for epoch in first.epochs] == [1, 2, 3]
    assert first.val_auc == max(epoch.val_auc for epoch in first.epochs)
    assert same(first.weights, run(labels).weights)
    assert not same(first.weights, run(labels, replace(SMALL, seed=1)).weights)

    state = tmp_path / "run.state"
    with pytest.raises(KeyboardInterrupt):
        run(labels, listener=Heard(stop_after=2), state=state)
    heard = Heard()
    resumed = run(labels, listener=heard, state=state)
    assert [epoch.number for epoch in heard.epochs] == [3]
    assert resumed.epochs == first.epochs
    assert same(resumed.weights, first.weights)

    with pytest.raises(InputError, match="other images, settings or another detector"):
        run(labels, replace(SMALL, batch=13), state=state)
    state.write_bytes(b"torn")
    with pytest.raises(InputError, match="delete it to start over"):
        run(labels, state=state)


def test_it_stops_when_nothing_improves(labels):
    still = replace(SMALL, epochs=50, patience=2, learning_rate=1e-12)
    trained = run(labels, still)
    assert len(trained.epochs) < 50
    assert not any(epoch.best for epoch in trained.epochs[-2:])


# The NoDown networks, at sixteen times the work of a ResNet-50.
HEAVY = ("aligned", "corvi", "gan-nodown", "imaginet")
NETWORKS = [
    pytest.param(name, marks=[pytest.mark.full] if name in HEAVY else [])
    for name, spec in detectors().items()
    if spec.network is not None
]


@pytest.mark.parametrize("model", NETWORKS)
def test_every_network_trains_and_its_weights_load(labels, model):
    # At native resolution whole images are validated, and ever smaller ones are learned from.
    settings = replace(SMALL, epochs=1, crop=16) if model in HEAVY else replace(SMALL, epochs=1)
    trained = run(labels, settings, model)
    spec = find_detector(model)
    network = spec.network(spec.variants[-1])
    before = {key: value.clone() for key, value in network.state_dict().items()}
    load_into(network, trained.weights, source=model)
    assert not same(before, trained.weights)
    assert 0.0 <= trained.val_auc <= 1.0


@pytest.mark.parametrize("model", [name for name, spec in detectors().items() if spec.head])
def test_heads_on_a_tower_are_not_trained_here(labels, model):
    with pytest.raises(InputError, match=f"{model} is a head on CLIP's tower"):
        run(labels, model=model)


def test_a_diverging_training_is_said(labels):
    with pytest.raises(InputError, match="lower --learning-rate"):
        run(labels, replace(SMALL, learning_rate=1e30), model="npr")


def test_a_file_that_does_not_decode_is_left_out_with_its_reason(labels, tmp_path):
    images = read_labels(labels)
    broken = tmp_path / "broken.png"
    broken.write_bytes(images[0].path.read_bytes()[:60])
    kept, refused = readable([*images, replace(images[0], path=broken)])
    assert kept == images
    assert len(refused) == 1
    assert refused[0].startswith(str(broken))


def test_variants_that_differ_must_be_named():
    with pytest.raises(InputError, match=r"--variant forensynth\|wildrf"):
        find_variant(find_detector("tiny-ladeda"), None)
    assert find_variant(find_detector("npr"), None).name == "npr"


def test_the_command_trains_builds_and_scores(labels, tmp_path):
    out = tmp_path / "mine.safetensors"
    done = run_trtdet(
        "train", labels, "--model", "cooccurrence", "--out", out, "--epochs", 2, "--crop", 48,
        "--batch", 16,
    )  # fmt: skip
    assert done.stdout.strip() == str(out)
    assert "epoch 2/2" in done.stderr
    assert "trtdet build --model cooccurrence" in done.stderr
    assert not out.with_name(out.name + ".state").exists()
    assert load_state_dict(out)
    bundle = tmp_path / "bundle"
    run_trtdet("build", "--model", "cooccurrence", "--weights", out, "--out", bundle)
    images = read_labels(labels)
    table = write_rows(tmp_path / "in.csv", [str(each.path) for each in images])
    run_trtdet("score", table, tmp_path / "out.csv")
    logits = np.array([float(row[1]) for row in read_rows(tmp_path / "out.csv")[1:]])
    truth = np.array([each.label for each in images])
    assert logits[truth == 1].mean() > logits[truth == 0].mean()


def test_the_command_refuses_before_it_trains(labels, tmp_path):
    out = tmp_path / "w.safetensors"
    state = tmp_path / "w.safetensors.state"
    base = ("train", labels, "--model", "cooccurrence", "--out")
    for arguments, message in (
        ((*base, tmp_path / "w.pth"), "must end in .safetensors"),
        ((*base, out, "--resume"), "leave --resume out"),
        ((*base, tmp_path / "no" / "w.safetensors"), "No such file"),
        ((*base, out, "--crop", 33), "is odd"),
        (("train", labels, "--model", "nothing", "--out", out), "no detector called"),
    ):
        assert message in refusal(*arguments)
    state.touch()
    assert "--resume" in refusal(*base, out)
