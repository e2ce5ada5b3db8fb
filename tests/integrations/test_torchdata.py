"""torchdata's StatefulDataLoader by ``sampler=``, in a real job; what its own state does is in tests/torch/test_torchdata.py."""

import pytest

pytest.importorskip("torchdata")

from integrations.jobs import EXAMPLES, run


@pytest.mark.slow
def test_the_example_goes_on_where_it_was_stopped(tmp_path):
    """Two ranks with workers read 56 of 100 samples, one without workers the other 44 and the next epoch."""
    example = EXAMPLES / "resume_torchdata.py"
    assert len(example.read_text().splitlines()) < 80
    assert run(2, example, tmp_path / "run", 2, 7) == "stopped: 56 samples of epoch 0\n"
    assert run(1, example, tmp_path / "run", 0) == "epoch 0: 44 samples\nepoch 1: 100 samples\n"
