"""Orders: in which sequence an epoch visits the sample ids, computed and never stored."""
