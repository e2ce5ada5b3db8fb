"""Orders: in which sequence an epoch visits the sample ids, as bijections that are computed, not stored."""
