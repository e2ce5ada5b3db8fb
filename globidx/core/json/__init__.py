"""JSON as records and indexes use it: strict both ways, and checked against a schema."""
