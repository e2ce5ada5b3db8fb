"""Jobs are run, and not imported for examples in them: they need the projects that they are of."""

collect_ignore_glob = ["*_job.py"]
