"""From files to a network: which files, in which order, and what each message says to do."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.conftest import run_trtdet

torch = pytest.importorskip("torch", reason="building needs torch (trtdet[build])")

from tests.build.random_weights import (  # noqa: E402
    REDUCED,
    head_tensors,
    in_layout,
    random_tensors,
    random_tower,
)
from trtdet.build.clip_tower import ClipTower  # noqa: E402
from trtdet.build.detectors.registry import find_detector  # noqa: E402
from trtdet.build.load import (  # noqa: E402
    Loaded,
    TowerDetectors,
    find_detectors,
    find_files,
    load_detectors,
    split_variants,
)
from trtdet.build.tower_shapes import TowerConfig  # noqa: E402
from trtdet.errors import CheckpointError, InputError  # noqa: E402


def load(model: str, weights, variant: str | None = None, backbone=None) -> Loaded:
    specs = find_detectors(model)
    return load_detectors(specs, list(weights), split_variants(specs, variant), backbone)


class TestWhichDetectors:
    def test_one_or_several_on_one_tower(self):
        assert [spec.name for spec in find_detectors("npr")] == ["npr"]
        assert [spec.name for spec in find_detectors("univfd, rine")] == ["univfd", "rine"]

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (
                "npr,aligned",
                r"npr and aligned share no network: .*join them with `trtdet ensemble`",
            ),
            ("rine,npr", r"rine and npr share no network"),
            ("rine,rine", r"--model rine,rine names a detector twice"),
            ("rine,", r"no detector called ''"),
            ("rine,univdf", r"Did you mean univfd"),
        ],
    )
    def test_others_are_refused(self, model, message):
        with pytest.raises(InputError, match=message):
            find_detectors(model)

    def test_a_variant_for_each(self):
        two = find_detectors("rine,univfd")
        assert split_variants(two, None) == [None, None]
        assert split_variants(two, "ldm, progan") == ["ldm", "progan"]
        assert split_variants(two, "ldm,") == ["ldm", None]
        with pytest.raises(InputError, match=r"names 1 variants for 2 detectors.*leave a place"):
            split_variants(two, "ldm")
        with pytest.raises(InputError, match="names 2 variants for 1 detectors"):
            split_variants(find_detectors("npr"), "npr,npr")


class TestFindFiles:
    """What is fetched, in what order, and what is not."""

    def find(self, model, weights=(), backbone=None, fetch=None, variant=None):
        specs = find_detectors(model)
        return find_files(specs, split_variants(specs, variant), weights, backbone, fetch)

    def test_too_few_and_too_many(self, synthetic_files):
        weights, tower = synthetic_files("rine", "4class")
        with pytest.raises(InputError, match=r"1 of --weights .* npr .* not 2"):
            self.find("npr", (weights, weights))
        with pytest.raises(InputError, match=r"2 of --weights.*rine, univfd .*not 1"):
            self.find("rine,univfd", (weights,), tower)
        with pytest.raises(InputError, match="npr is a whole network: leave --backbone out"):
            self.find("npr", (weights,), tower)

    def test_nothing_to_fetch_with(self, synthetic_files):
        weights, _tower = synthetic_files("rine", "4class")
        with pytest.raises(InputError, match=r"npr needs its files: give --weights"):
            self.find("npr")
        with pytest.raises(InputError, match=r"rine needs its files: .*--backbone"):
            self.find("rine", (weights,))

    def test_what_is_missing_is_fetched_and_what_is_named_is_not(self, synthetic_files):
        weights, tower = synthetic_files("rine", "4class")
        asked = []

        def fetch(release):
            asked.append(release.file)
            return Path(release.file)

        assert self.find("rine", (weights,), tower, fetch) == ([weights], tower)
        assert asked == []
        files = ["model_ldm_trainable.pth", "fc_weights.pth", "ViT-L-14.pt"]
        found = self.find("rine,univfd", fetch=fetch, variant="ldm,")
        assert found == ([Path(each) for each in files[:2]], Path(files[2]))
        assert asked == files
        with pytest.raises(CheckpointError, match=r"no\.pth does not exist"):
            self.find("rine", (Path("no.pth"),), fetch=fetch)
        assert asked == files  # a mistyped name costs no download


class TestWholeNetworks:
    def test_the_network_has_the_files_tensors(self, synthetic_files):
        weights, _none = synthetic_files("npr", "progan-4class")
        loaded = load("npr", [weights], "progan-4class")
        own = loaded.network.state_dict()
        assert all(torch.equal(own[key], value) for key, value in torch.load(weights).items())
        (part,) = loaded.parts
        assert (part.variant.name, part.released, loaded.tower) == ("progan-4class", False, None)


class TestSections:
    """ImagiNet's file: two state dicts, and much that only its training needs."""

    @pytest.fixture
    def file(self) -> dict:
        spec = find_detector("imaginet")
        tensors = random_tensors(spec.network(spec.variants[0]).state_dict())
        return in_layout(spec, tensors)

    def saved(self, content, path: Path) -> list[Path]:
        torch.save(content, path)
        return [path]

    def test_the_parts_are_joined_and_what_only_training_needs_is_left_out(self, file, tmp_path):
        assert "head.0.weight" in file["model"]
        assert "encoder.selfcon_layer.0.weight" in file["model"]
        loaded = load("imaginet", self.saved(file, tmp_path / "imaginet_weights.pt"))
        own = loaded.network.state_dict()
        for key, value in file["classifier"].items():
            assert torch.equal(own[f"classifier.{key}"], value)
        assert torch.equal(own["encoder.conv1.weight"], file["model"]["encoder.conv1.weight"])
        again = {key: value for key, value in file.items() if key in ("model", "classifier")}
        other = load("imaginet", self.saved(again, tmp_path / "other.pt"))
        assert other.parts[0].identity.fingerprint == loaded.parts[0].identity.fingerprint

    def test_data_parallel_parts(self, file, tmp_path):
        file["model"] = {f"module.{key}": value for key, value in file["model"].items()}
        load("imaginet", self.saved(file, tmp_path / "imaginet_weights.pt"))

    def test_a_part_that_is_missing_is_named(self, file, tmp_path):
        del file["classifier"]
        with pytest.raises(CheckpointError, match=r"a part 'model' but none called classifier"):
            load("imaginet", self.saved(file, tmp_path / "w.pt"))

    def test_an_unknown_key_is_refused(self, file, tmp_path):
        file["model"]["encoder.fc.weight"] = torch.ones(2, 2)
        with pytest.raises(CheckpointError, match=r"1 unexpected: encoder\.fc\.weight"):
            load("imaginet", self.saved(file, tmp_path / "w.pt"))

    def test_an_unknown_key_of_the_second_part_is_refused(self, file, tmp_path):
        file["classifier"]["9.weight"] = torch.ones(2, 2)
        with pytest.raises(CheckpointError, match=r"1 unexpected: classifier\.9\.weight"):
            load("imaginet", self.saved(file, tmp_path / "w.pt"))


class TestHeads:
    def test_a_file_for_each_in_their_order(self, synthetic_files):
        (rine, tower), (univfd, _tower) = (
            synthetic_files("rine", "4class"),
            synthetic_files("univfd", "progan"),
        )
        with pytest.raises(CheckpointError, match="no weights of a RINE head"):
            load("rine,univfd", [univfd, rine], backbone=tower)
        loaded = load("rine,univfd", [rine, univfd], backbone=tower)
        assert [part.variant.name for part in loaded.parts] == ["4class", "progan"]
        assert loaded.tower.config == REDUCED
        assert loaded.tower.tensors == {}  # they are the network's

    def test_a_head_of_another_tower(self, synthetic_files, tmp_path):
        _weights, tower = synthetic_files("rine", "4class")
        spec = find_detector("rine")
        other = TowerConfig(192, 2, 3, 32, 224, 64)
        torch.save(head_tensors(spec, spec.variants[0], other), tmp_path / "w.pth")
        with pytest.raises(CheckpointError, match=r"reads 2 blocks of width 192.*3 of width 128"):
            load("rine", [tmp_path / "w.pth"], backbone=tower)

    def test_a_tower_in_place_of_the_head_and_the_other_way_round(self, synthetic_files):
        weights, tower = synthetic_files("rine", "4class")
        with pytest.raises(CheckpointError, match="no weights of a RINE head"):
            load("rine", [tower], backbone=tower)
        with pytest.raises(CheckpointError, match="no visual tower"):
            load("rine", [weights], backbone=weights)

    def test_a_key_too_many_or_too_few(self, synthetic_files, tmp_path):
        weights, tower = synthetic_files("univfd", "progan")
        tensors = torch.load(weights)
        torch.save({**tensors, "scale": torch.ones(1)}, tmp_path / "more.pth")
        with pytest.raises(CheckpointError, match="1 unexpected: scale"):
            load("univfd", [tmp_path / "more.pth"], backbone=tower)
        torch.save({"weight": tensors["weight"]}, tmp_path / "less.pth")
        with pytest.raises(CheckpointError, match="1 missing: bias"):
            load("univfd", [tmp_path / "less.pth"], backbone=tower)

    def test_the_network_has_the_tensors_of_both_files(self, synthetic_files):
        weights, tower = synthetic_files("univfd", "progan")
        network = load("univfd", [weights], backbone=tower).network
        assert isinstance(network, TowerDetectors)
        assert isinstance(network.tower, ClipTower)
        own, tensors = network.state_dict(), random_tower()
        assert torch.equal(own["tower.conv1.weight"], tensors["conv1.weight"])
        last = f"transformer.resblocks.{REDUCED.layers - 1}."
        assert torch.equal(own["heads.0.mlp.c_fc.weight"], tensors[f"{last}mlp.c_fc.weight"])
        assert torch.equal(own["heads.0.proj"], tensors["proj"])
        assert torch.equal(own["heads.0.weight"], torch.load(weights)["weight"])
        assert not any(value.is_meta for value in own.values())


@pytest.fixture
def shallow(tmp_path) -> Path:
    """As wide as ViT-L/14, with one block in place of 24, which are 1.2 GB."""
    torch.save(random_tower(TowerConfig(1024, 1, 16, 14, 224, 768)), tmp_path / "shallow.pth")
    return tmp_path / "shallow.pth"


class TestReleasedHeads:
    """The authors' own files, on a tower of the right shape."""

    def test_univfds_layer_is_recognised(self, shared, shallow):
        path = shared / "checkpoints/univfd_fc_weights.pth"
        (part,) = load("univfd", [path], backbone=shallow).parts
        assert (part.variant.name, part.released) == ("progan", True)

    def test_rines_head_is_recognised_by_its_git_blob(self, shared, synthetic_files):
        from trtdet.build.checkpoint import identify, load_state_dict
        from trtdet.build.detectors.registry import choose_variant, is_released

        path = shared / "checkpoints/rine_2class_trainable.pth"
        data = path.read_bytes()
        blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        identity = identify(path, load_state_dict(path))
        spec = find_detector("rine")
        variant = choose_variant(spec, None, identity)
        assert (variant.name, variant.git_blob, identity.git_blob) == ("2class", blob, blob)
        assert is_released(variant, identity)
        with pytest.raises(InputError, match=r"variant 2class .*--variant ldm contradicts them"):
            choose_variant(spec, "ldm", identity)

    def test_rines_head_on_a_smaller_tower_is_refused(self, shared, synthetic_files):
        path = shared / "checkpoints/rine_2class_trainable.pth"
        _weights, tower = synthetic_files("rine", "4class")
        with pytest.raises(CheckpointError, match=r"24 blocks of width 1024, and the tower has 3"):
            load("rine", [path], backbone=tower)


def test_the_command_says_so_too(synthetic_files, tmp_path):
    weights, tower = synthetic_files("rine", "4class")
    out = tmp_path / "bundle"
    for arguments, message in (
        (("--weights", weights, "--backbone", weights), "no visual tower"),
        (("--weights", weights, "--weights", weights, "--backbone", tower), "1 of --weights"),
        (("--weights", weights, "--backbone", tower, "--variant", "a,b"), "names 2 variants"),
    ):
        done = run_trtdet("build", "--model", "rine", *arguments, "--out", out, check=False)
        assert done.returncode == 2
        assert message in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
