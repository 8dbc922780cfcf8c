"""Ensembles of one network behind several geometries."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from trtdet.engine.bundle import open_bundle, write_record
from trtdet.engine.decision import Decision, Vote
from trtdet.engine.ensemble import Ensemble, write_ensemble
from trtdet.engine.geometry import Geometry
from trtdet.engine.steps import CenterCrop, Stretch

MEMBERS = {
    "cropped": (Geometry.of(CenterCrop(256, 256)), Decision(0.5, 0.25)),
    "stretched": (Geometry.of(Stretch(256, 256, "bicubic")), Decision()),
    "whole": (Geometry.of(Stretch(256, 256)), Decision(2.0, -1.0)),
}
VOTE = Vote("mean-probability", (1.0, 2.0, 0.5), 0.487)


def make_ensemble(folder: Path, bundle: Path, vote: Vote = VOTE) -> Path:
    """The same network behind several geometries, in one folder."""
    members = []
    for name, (geometry, decision) in MEMBERS.items():
        path = shutil.copytree(bundle, folder / "members" / name)
        changed = replace(open_bundle(path), name=name, geometry=geometry, decision=decision)
        write_record(changed, path)
        members.append(open_bundle(path))
    write_ensemble(Ensemble("together", vote, tuple(members), folder), folder)
    return folder
