"""Trained weights as a file: safetensors, with how they were made in its header."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import safetensors
import safetensors.torch

import trtdet
from trtdet.build.detectors.spec import DetectorSpec, Variant
from trtdet.build.train import Trained, TrainSettings
from trtdet.engine.atomic import atomic_bytes


def trained_settings(path: Path) -> TrainSettings:
    """The settings that `write_weights` noted in a file."""
    with safetensors.safe_open(path, "pt") as file:
        return TrainSettings(**json.loads(file.metadata()["settings"]))


def write_weights(
    trained: Trained, spec: DetectorSpec, variant: Variant, settings: TrainSettings, path: Path
) -> None:
    """Write the best weights to `path`, whole or not at all."""
    history = [asdict(epoch) for epoch in trained.epochs]
    metadata = {
        "detector": spec.name,
        "variant": variant.name,
        "val_auc": f"{trained.val_auc:.6f}",
        "settings": json.dumps(asdict(settings)),
        "epochs": json.dumps(history),
        "trtdet": trtdet.__version__,
    }
    content = safetensors.torch.save(trained.weights, metadata)
    with atomic_bytes(path) as file:
        file.write(content)
