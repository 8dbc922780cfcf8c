from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from trtdet.calibration.labels import read_labels, split_images
from trtdet.errors import InputError


def write(folder: Path, text: str, files: int = 40) -> Path:
    for number in range(files):
        (folder / f"{number}.png").touch()
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def rows(count: int = 40, extra=lambda number: "") -> str:
    return "".join(f"{number}.png,{number % 2}{extra(number)}\n" for number in range(count))


def test_rows_with_and_without_the_optional_columns(tmp_path):
    plain = read_labels(write(tmp_path, "filename,label\n" + rows()))
    assert [each.label for each in plain[:3]] == [0, 1, 0]
    assert plain[0].path == tmp_path / "0.png"
    assert (plain[0].split, plain[0].source, plain[0].image) == ("", "", "0.png")
    header = "label, filename ,split,source,generator,image\n"
    full = read_labels(write(tmp_path, header + "1,0.png,Train,here,GAN,a\n0,1.png,val,,,\n"))
    assert (full[0].split, full[0].source, full[0].generator, full[0].image) == (
        "train", "here", "GAN", "a",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\n", "no column 'filename'"),
        ("filename,class\n", "no column 'label'"),
        ("", "no column 'filename' and no column 'label'"),
        ("filename,label\n", "no rows"),
        ("filename,label\n0.png,0\n1.png,fake\n2.png,\n", "line 3: 'fake', line 4: ''"),
        ("filename,label\n0.png,0\n1.png,2\n", "neither 0"),
        ("filename,label\n0.png,0\n1.png\n", "line 3: None"),
        ("label,filename\n0,0.png\n1\n", "rows without a filename: line 3"),
        ("filename,label\n0.png,0\nnowhere.png,1\n", "nowhere.png"),
        ("filename,label\n0.png,0\n1.png,0\n", "2 real and 0 synthetic"),
        ('filename,label\n0.png,"0\n', "well-formed"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_labels(write(tmp_path, text))


def test_a_missing_table(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_labels(tmp_path / "none.csv")


def test_the_column_split_is_obeyed_and_other_names_are_left_out(tmp_path):
    names = ("train", "train", "val", "val", "test", "")
    text = "filename,label,split\n" + rows(36, lambda number: "," + names[number % 6])
    training, validation = split_images(read_labels(write(tmp_path, text)), seed=0)
    assert len(training) == len(validation) == 12
    assert {each.split for each in validation} == {"val"}


def test_a_drawn_split_has_both_classes_keeps_pictures_together_and_repeats(tmp_path):
    # Twenty pictures of two files each, and the two have opposite labels.
    text = "filename,label,image\n" + rows(40, lambda number: f",p{number // 2}")
    images = read_labels(write(tmp_path, text))
    training, validation = split_images(images, seed=3)
    assert len(training) + len(validation) == 40
    assert not {each.image for each in training} & {each.image for each in validation}
    assert set(Counter(each.label for each in validation)) == {0, 1}
    assert split_images(images, seed=3) == (training, validation)
    assert split_images(images, seed=4) != (training, validation)


def test_a_picture_on_both_sides_is_refused(tmp_path):
    text = "filename,label,split,image\n"
    text += "0.png,0,train,a\n1.png,1,train,b\n2.png,0,val,a\n3.png,1,val,c\n"
    with pytest.raises(InputError, match=r"1 pictures have files in both splits.*: a"):
        split_images(read_labels(write(tmp_path, text)), seed=0)


def test_a_split_without_one_class_is_refused(tmp_path):
    text = "filename,label,split\n0.png,0,train\n1.png,1,train\n2.png,0,val\n"
    with pytest.raises(InputError, match="split 'val' has 1 real and 0 synthetic"):
        split_images(read_labels(write(tmp_path, text)), seed=0)
