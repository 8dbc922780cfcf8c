"""Sessions on OpenVINO have the streams and slots that they are asked for."""

from __future__ import annotations

import pytest

from trtdet.engine.backends import choose_backend
from trtdet.engine.bundle import open_bundle
from trtdet.engine.engine import open_engine
from trtdet.engine.machine import core_count


@pytest.mark.parametrize(("streams", "slots"), [(1, 1), (2, 5), (None, None)])
def test_streams_and_slots_are_those_that_were_asked_for(small_bundle, streams, slots):
    backend, _ = choose_backend("openvino")
    with open_engine(backend, open_bundle(small_bundle), streams=streams, slots=slots) as engine:
        for name in ("NUM_STREAMS", "INFERENCE_NUM_THREADS"):
            assert _property(engine, name) == (streams or core_count())
        assert engine.slots == (slots or engine.slots)
        assert engine.slots >= 1


def _property(engine, name: str):
    """Of the compiled graph, which nobody may hold when the session is closed."""
    return engine.lanes[0].session._requests[0].get_compiled_model().get_property(name)
