"""How batches come from those who read them to the loop: in shared memory, or from threads."""
