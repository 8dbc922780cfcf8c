from __future__ import annotations

from pathlib import Path

import pytest

from trtdet.benchmarks.groups import by_format, by_generator, by_source, find_groups
from trtdet.calibration.labels import LabelledImage


def image(name: str, label: int, generator: str = "", source: str = "") -> LabelledImage:
    return LabelledImage(Path(name), label, generator=generator, source=source)


def members(groups: dict, images: list[LabelledImage]) -> dict[str, str]:
    return {
        title: " ".join(each.path.stem for each, kept in zip(images, inside, strict=True) if kept)
        for title, inside in groups.items()
    }


def test_generators_stand_against_all_real_files_families_together_rare_ones_together():
    images = [
        image("r1", 0, "real"), image("r2", 0),
        image("a1", 1, "GAN"), image("a2", 1, "GAN"), image("a3", 1, "GAN"),
        image("b1", 1, "diffusion: FLUX.1"), image("b2", 1, "diffusion: SD 1.5"),
        image("c1", 1, "X"), image("d1", 1, "Y"), image("e1", 1),
    ]  # fmt: skip
    assert members(by_generator(images, smallest=2), images) == {
        "GAN": "r1 r2 a1 a2 a3",
        "diffusion": "r1 r2 b1 b2",
        "2 others": "r1 r2 c1 d1",
    }


def test_in_the_fields_folders_a_generator_has_real_files_of_its_own():
    images = [
        image("r1", 0, "progan"), image("f1", 1, "progan"),
        image("r2", 0, "ADM"), image("f2", 1, "ADM"),
    ]  # fmt: skip
    found = members(by_generator(images, smallest=1), images)
    assert found == {"progan": "r1 f1", "ADM": "r2 f2"}


def test_one_rare_generator_keeps_its_name():
    images = [image("r", 0), image("a", 1, "A"), image("b", 1, "A"), image("c", 1, "B")]
    assert list(by_generator(images, smallest=2)) == ["A", "B"]


def test_a_format_has_several_suffixes():
    images = [image("a.JPEG", 0), image("b.jpg", 1), image("c.tif", 0), image("d.tiff", 1)]
    assert members(by_format(images), images) == {
        "jpg synthetic, all real": "a b c", "jpg alone": "a b",
        "tiff synthetic, all real": "a c d", "tiff alone": "c d",
    }  # fmt: skip


def test_sources_are_taken_as_they_are():
    images = [
        image("a", 0, source="S"), image("b", 0, source="S"), image("c", 1, source="T"),
        image("d", 1), image("e", 1, source="U"),
    ]  # fmt: skip
    assert members(by_source(images, smallest=2), images) == {"S": "a b", "2 others": "c e"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a.jpg", "b.jpg"), {}),
        (
            ("a.jpg", "b.PNG", "c.webp"),
            {"png synthetic, all real": "a b", "webp synthetic, all real": "a c"},
        ),
        (
            ("a.jpg", "b.jpg", "c.png"),
            {
                "jpg synthetic, all real": "a b",
                "jpg alone": "a b",
                "png synthetic, all real": "a c",
            },
        ),
    ],
)
def test_formats_are_told_apart_where_there_are_several(names, expected):
    images = [image(names[0], 0), *(image(name, 1) for name in names[1:])]
    assert members(by_format(images), images) == expected


def test_groups_know_their_kind():
    images = [image("a.jpg", 0, "", "S"), image("b.png", 1, "G", "S")]
    kinds = [(each.kind, each.name) for each in find_groups(images, smallest=1)]
    assert kinds == [
        ("generator", "G"), ("source", "S"), ("format", "png synthetic, all real")
    ]  # fmt: skip
