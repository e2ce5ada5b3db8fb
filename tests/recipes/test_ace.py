"""The page on ACE: its diff fits ACE's own files, whose trainer then resumes with any number of processes."""

from recipe_jobs import run, seen
from recipe_pages import patched


def test_a_run_of_their_trainer_is_killed_three_times(tmp_path):
    """In mid-epoch on 2 processes; on 3, between training and validation; on 1, in an epoch that has other samples."""
    package, folder = patched("ace", tmp_path / "patched"), tmp_path / "run"
    folder.mkdir()
    for ranks, kill_at, trained in ((2, [4], 24), (3, [-1], 60), (1, [16], 84), (1, [], 118)):
        run(ranks, "ace_job.py", folder, package, *kill_at)
        assert sum(times.total() for times in seen(folder).values()) == trained
    assert seen(folder) == {1: dict.fromkeys(range(60), 1), 2: dict.fromkeys(range(58), 1)}
