"""Reading before any file is opened: what a batch needs, and what an order costs."""
