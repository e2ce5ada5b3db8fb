"""Metrics over the ranks of a job."""
