"""A bundle arrives on a machine once, whole, whoever asks for it at the same time."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from trtdet.engine.bundle import open_bundle
from trtdet.engine.shipped import ShippedFiles, bundle_digest, read_files, unpack_once
from trtdet.engine.store import store_folder
from trtdet.errors import BundleError


def test_a_bundle_arrives_as_it_was(small_bundle):
    folder = unpack_once(bundle_digest(small_bundle), lambda: read_files(small_bundle))
    assert folder.parent == store_folder() / "shipped"
    assert open_bundle(folder) == open_bundle(small_bundle)
    assert bundle_digest(folder) == bundle_digest(small_bundle)


def test_plans_and_kernels_stay_where_they_were_compiled(small_bundle, tmp_path):
    bundle = shutil.copytree(small_bundle, tmp_path / "bundle")
    for folder in ("plans", "kernels", "members/one/plans"):
        (bundle / folder).mkdir(parents=True)
        (bundle / folder / "code").write_bytes(b"code")
    assert bundle_digest(bundle) == bundle_digest(small_bundle)
    assert read_files(bundle).contents.keys() == read_files(small_bundle).contents.keys()


def test_many_ask_and_one_fetches(small_bundle):
    digest, fetched = bundle_digest(small_bundle), []

    def fetch():
        fetched.append(digest)
        return read_files(small_bundle)

    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: unpack_once(digest, fetch), range(8)))
    assert len(folders) == len(fetched) == 1


def test_what_was_damaged_on_the_machine_is_fetched_again(small_bundle):
    digest = bundle_digest(small_bundle)
    folder = unpack_once(digest, lambda: read_files(small_bundle))
    (folder / "model.onnx").write_bytes(b"something else")
    assert open_bundle(unpack_once(digest, lambda: read_files(small_bundle))).name == "small"


def test_what_does_not_arrive_whole_is_not_kept(small_bundle):
    files = read_files(small_bundle).contents
    cut = ShippedFiles({**files, "model.onnx": np.zeros(3, np.uint8)})
    with pytest.raises(BundleError, match="did not arrive whole"):
        unpack_once(bundle_digest(small_bundle), lambda: cut)
    assert not list((store_folder() / "shipped").glob("*"))
