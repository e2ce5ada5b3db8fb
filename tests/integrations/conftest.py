"""Jobs are run, and not imported for examples in them: they need their frameworks."""

import integrations.vision  # noqa: F401 - before Composer imports torchvision

collect_ignore_glob = ["*_job.py", "*_samples.py"]
