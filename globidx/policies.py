"""Which records to keep: ``last(3)``, ``every(1000)``, ``best("loss")``, or several by ``|``.

Pass one as ``CheckpointManager(..., keep=...)``. A function is a policy too, if it takes the
entries of a folder, oldest first, and returns the numbers of those to keep.
"""

from __future__ import annotations

from globidx.core.records.policies import Entry, Keep, Policy, best, every, last

__all__ = ["Entry", "Keep", "Policy", "best", "every", "last"]
