"""Jobs are run, and not imported for examples in them: they need their frameworks."""

from integrations.vision import without_its_operators

collect_ignore_glob = ["*_job.py"]
without_its_operators()
