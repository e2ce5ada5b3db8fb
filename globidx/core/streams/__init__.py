"""Streams: how what is read in one sequence is divided among loader workers."""
