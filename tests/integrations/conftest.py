"""Jobs are run, and not imported for examples in them: they need their frameworks."""

collect_ignore_glob = ["*_job.py", "*_samples.py"]
