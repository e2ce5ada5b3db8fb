"""Progress: which positions of an epoch are done, as algebra over segments."""
