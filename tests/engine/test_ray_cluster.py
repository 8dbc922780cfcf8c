"""How many engines a cluster takes."""

from __future__ import annotations

import pytest

from trtdet.engine.ray_cluster import Engines, plan_engines
from trtdet.errors import InputError


def nodes(*resources):
    return [{"Alive": True, "Resources": each} for each in resources]


def test_small_nodes_have_an_engine_each_that_claims_half_of_the_cores():
    assert plan_engines(nodes({"CPU": 2.0}, {"CPU": 2.0}), "auto") == Engines(2, 2, 1, 0, 2)


def test_large_nodes_have_several():
    assert plan_engines(nodes({"CPU": 64}, {"CPU": 40}), "openvino") == Engines(6, 2, 8, 0, 16)


def test_the_smallest_node_says_how_large_an_engine_is():
    assert plan_engines(nodes({"CPU": 5}, {"CPU": 9}), "auto") == Engines(3, 2, 2, 0, 4)


def test_gpus_have_an_engine_each():
    machines = nodes({"CPU": 16, "GPU": 4}, {"CPU": 8, "GPU": 1}, {"CPU": 8})
    assert plan_engines(machines, "auto") == Engines(5, 2, 1, 1, None)
    assert plan_engines(machines, "openvino").gpus == 0


def test_what_is_gone_or_has_one_cpu_counts_for_nothing():
    gone = [{"Alive": False, "Resources": {"CPU": 8.0}}]
    assert plan_engines([*gone, *nodes({"CPU": 4}, {"CPU": 1}, {})], "auto").nodes == 1
    with pytest.raises(InputError, match="no node of the Ray cluster has two CPUs"):
        plan_engines([*gone, *nodes({"CPU": 1})], "auto")
    with pytest.raises(InputError, match="has a GPU: leave --backend out"):
        plan_engines(nodes({"CPU": 8}), "tensorrt")
