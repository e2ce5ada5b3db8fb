"""Reading before any file is opened: which rows of which arrays a batch needs, and what an order costs."""
