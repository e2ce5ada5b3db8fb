"""Reading batches: plans carried out over open files, with a bounded cache of decoded chunks."""
