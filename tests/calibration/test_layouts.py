"""The field's folder layouts, small ones made as their data sets lie on disk."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from trtdet.calibration.layouts import read_images
from trtdet.errors import InputError

FORENSYNTHS = (  # CNNDetection's test set: some generators have categories, some have none
    "progan/airplane/0_real/1.png", "progan/airplane/1_fake/1.png", "progan/cat/0_real/1.png",
    "progan/cat/1_fake/1.png", "deepfake/0_real/a.png", "deepfake/1_fake/b.png",
)  # fmt: skip
AIGC_DETECT = (
    "ADM/0_real/1.PNG", "ADM/1_fake/1.png", "DALLE2/0_real/1.jpg", "DALLE2/1_fake/1.png",
    "whichfaceisreal/0_real/1.jpeg", "whichfaceisreal/1_fake/1.jpeg",
)  # fmt: skip
GENIMAGE = (
    "Midjourney/imagenet_midjourney/train/ai/1.png",
    "Midjourney/imagenet_midjourney/train/nature/1.JPEG",
    "Midjourney/imagenet_midjourney/val/ai/2.png",
    "Midjourney/imagenet_midjourney/val/nature/2.JPEG",
    "BigGAN/imagenet_ai_0419_biggan/train/ai/3.png",
    "BigGAN/imagenet_ai_0419_biggan/val/ai/4.png",
    "BigGAN/imagenet_ai_0419_biggan/val/nature/4.JPEG",
)


def make(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def summary(images) -> Counter:
    return Counter((each.generator, each.label) for each in images)


def test_forensynths(tmp_path):
    images = read_images(make(tmp_path, FORENSYNTHS))
    assert summary(images) == {
        ("progan", 0): 2, ("progan", 1): 2, ("deepfake", 0): 1, ("deepfake", 1): 1
    }  # fmt: skip
    assert [each.image for each in images] == sorted(FORENSYNTHS)
    assert all(each.path == tmp_path / each.image for each in images)


def test_aigc_detect_benchmark(tmp_path):
    images = read_images(make(tmp_path, AIGC_DETECT))
    generators = ("ADM", "DALLE2", "whichfaceisreal")
    assert summary(images) == {(name, label): 1 for name in generators for label in (0, 1)}


def test_genimage_gives_its_validation_part_unless_told(tmp_path):
    make(tmp_path, GENIMAGE)
    assert summary(read_images(tmp_path)) == {
        ("Midjourney", 0): 1, ("Midjourney", 1): 1, ("BigGAN", 0): 1, ("BigGAN", 1): 1
    }  # fmt: skip
    assert summary(read_images(tmp_path, "train")) == {
        ("Midjourney", 0): 1, ("Midjourney", 1): 1, ("BigGAN", 1): 1
    }  # fmt: skip


def test_training_images_are_left_out_wherever_there_are_others(tmp_path):
    make(tmp_path, [f"{part}/{each}/1.png" for part in ("train", "val", "test")
                    for each in ("0_real", "1_fake")])  # fmt: skip
    assert {each.split for each in read_images(tmp_path)} == {"test"}
    assert {each.split for each in read_images(tmp_path, " Val ")} == {"val"}
    shutil.rmtree(tmp_path / "val")
    assert {each.split for each in read_images(tmp_path)} == {"test"}
    shutil.rmtree(tmp_path / "test")
    assert {each.split for each in read_images(tmp_path)} == {"train"}


def test_one_generators_folder_has_its_own_name(tmp_path):
    images = read_images(make(tmp_path / "sdxl", ("0_real/1.png", "1_fake/1.png")))
    assert summary(images) == {("sdxl", 0): 1, ("sdxl", 1): 1}


def test_only_images_count_and_hidden_files_do_not(tmp_path):
    make(tmp_path, ("0_real/1.png", "1_fake/1.webp", "1_fake/.2.png", "1_fake/notes.txt", "x.png"))
    assert len(read_images(tmp_path)) == 2


def test_links_are_followed_but_not_in_circles(tmp_path):
    """Generators that share their real images, and a link to the root."""
    make(tmp_path, ("ADM/0_real/1.png", "ADM/1_fake/1.png", "VQDM/1_fake/2.png"))
    (tmp_path / "VQDM/0_real").symlink_to(tmp_path / "ADM/0_real")
    (tmp_path / "VQDM/1_fake/loop").symlink_to(tmp_path)
    assert summary(read_images(tmp_path)) == {
        (name, label): 1 for name in ("ADM", "VQDM") for label in (0, 1)
    }


def test_a_csv_is_read_with_its_parts_and_splits(tmp_path):
    make(tmp_path, ("a.png", "b.png", "c.png"))
    table = tmp_path / "labels.csv"
    table.write_text(
        "filename,label,generator,split,part\n"
        "a.png,0,,val, 1\nb.png,1,G,val,2.0\nc.png,1,G,Train,2\nnone.png,1,G,train,\n"
    )
    assert [each.part for each in read_images(table)] == ["1", "2", "2", ""]
    assert [each.path.name for each in read_images(table, "val")] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("names", "split", "message"),
    [
        (
            ("a.png",),
            None,
            "no folders that name the classes .0_real/1_fake, nature/ai, real/fake.",
        ),
        (("1_fake/a.png",), None, "has 0 real and 1 synthetic images"),
        (FORENSYNTHS, "val", "has no images of the split 'val' .it has no splits."),
        (GENIMAGE, "test", "has no images of the split 'test' .it has train, val."),
    ],
)
def test_what_is_missing_is_told(tmp_path, names, split, message):
    with pytest.raises(InputError, match=message):
        read_images(make(tmp_path, names), split)


def test_a_table_of_nothing_but_missing_files_is_refused(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("filename,label\na.png,0\nb.png,1\n")
    with pytest.raises(InputError, match=r"2 of 2 files that .* are not there"):
        read_images(table)
