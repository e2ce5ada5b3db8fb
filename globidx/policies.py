"""Which records to keep: ``last(3)``, ``every(1000)``, ``best("loss")``, and any of them joined by ``|``.

Pass one as ``CheckpointManager(..., keep=...)``. Any function of a folder's entries, oldest first, that returns the
numbers of those to keep is a policy too.
"""

from __future__ import annotations

from globidx.core.records.policies import Entry, Keep, Policy, best, every, last

__all__ = ["Entry", "Keep", "Policy", "best", "every", "last"]
