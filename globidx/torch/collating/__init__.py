"""How the samples of a batch are put together."""
