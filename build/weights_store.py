"""The store's weights: released files that were fetched, or put there by hand, and verified.

$TRTDET_HOME/weights/<file>

A record that needs a file beside its own checkpoint (a backbone that several detectors share)
takes it from here: `fetch_release(CLIP_TOWERS["clip-vit-l14"], on_progress)`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trtdet.build.download import OnLine, download
from trtdet.build.release import Release, accept
from trtdet.build.transfer import OnProgress
from trtdet.engine.store import store_folder
from trtdet.errors import DownloadError

if TYPE_CHECKING:
    from trtdet.build.detectors.spec import DetectorSpec, Variant

_CLIP = "https://openaipublic.azureedge.net/clip/models"
_VIT_L14 = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
_VIT_B32 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"

# The names that OpenAI's `clip.load` knows, and the files that it downloads and verifies alike.
CLIP_TOWERS: dict[str, Release] = {
    "clip-vit-l14": Release("ViT-L-14.pt", f"{_CLIP}/{_VIT_L14}/ViT-L-14.pt", sha256=_VIT_L14),
    "clip-vit-b32": Release("ViT-B-32.pt", f"{_CLIP}/{_VIT_B32}/ViT-B-32.pt", sha256=_VIT_B32),
}


def weights_folder() -> Path:
    """Where released weights are kept on this machine; it may not exist yet."""
    return store_folder() / "weights"


def fetch_release(
    release: Release, on_progress: OnProgress, on_line: OnLine = lambda _line: None
) -> Path:
    """The file of `release`, verified: the one in the store, else the network's.

    `on_progress` hears bytes done and in all, `on_line` what a person would want to know. Raises
    DownloadError where the file cannot be had, CheckpointError where there is another in its place.
    """
    path = weights_folder() / release.file
    if path.exists():
        accept(release, path)
        return path
    return download(release, weights_folder(), on_progress=on_progress, on_line=on_line)


def releases_of(
    spec: DetectorSpec, variant: str | None = None, *, every: bool = False
) -> list[Release]:
    """The release of the detector's variant; of its first unasked, of each that has one on `every`.

    Raises InputError for an unknown variant, and DownloadError, which says where a person finds
    the weights, where a program finds none.
    """
    if every:
        chosen = [each for each in spec.variants if each.release] or [spec.variants[0]]
    else:
        chosen = [_variant(spec, variant)]
    return [_release(spec, each) for each in chosen]


def _variant(spec: DetectorSpec, name: str | None) -> Variant:
    if name is None:
        return spec.variants[0]
    # Loads torch, as whoever has a spec has already done; the towers need none of it.
    from trtdet.build.detectors.registry import find_variant

    return find_variant(spec, name)


def _release(spec: DetectorSpec, variant: Variant) -> Release:
    if variant.release:
        return variant.release
    build = f"trtdet build --model {spec.name} --variant {variant.name} --weights FILE"
    if where := variant.url or variant.where:
        raise DownloadError(
            f"the weights of {spec.name} ({variant.name}) cannot be fetched by a program: "
            f"download them from {where}, then `{build}`"
        )
    raise DownloadError(
        f"nobody released weights of {spec.name} ({variant.name}): train your own with "
        f"`trtdet train LABELS.CSV --model {spec.name} --variant {variant.name} "
        f"--out mine.safetensors`, then `{build}`"
    )
