"""The pure core: arithmetic and frozen values over the standard library and numpy.

Nothing here opens a file, reads a clock or the environment, logs, or knows of torch.
"""
