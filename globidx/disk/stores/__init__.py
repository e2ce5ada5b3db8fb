"""Stores: what reads one file format, behind one interface, and the decoding that they share."""
