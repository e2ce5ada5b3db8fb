"""Ignite: what its engine trains on in real processes, resumed as docs/howto/trainers/ignite.md says."""

import pytest

pytest.importorskip("ignite")

from integrations.legs import assert_exact, run_legs


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The folder of a job that was saved on two ranks in the middle of an epoch, and resumed."""
    folder = tmp_path_factory.mktemp("ignite")
    run_legs("ignite_job.py", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_run_goes_on_on_any_number_of_processes(job, ranks):
    """The engine's epochs are the sampler's: the one that is resumed ends where the record's does."""
    assert_exact(job, ranks)
