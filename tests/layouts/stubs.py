"""Packages imported without what their classes under comparison do not need."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib.machinery import PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def bare(*packages: str, absent: tuple[str, ...] = ()) -> Iterator[None]:
    """Within it, ``packages`` are imported without their ``__init__``, which pull in whole frameworks.

    Modules ``absent`` are there, and nothing in them is real. What was imported keeps all this;
    whoever imports the packages later gets them as they are.
    """
    roots = {name.partition(".")[0] for name in (*packages, *absent)}
    before = {name: module for name, module in sys.modules.items() if _root(name) in roots}
    for name in before:
        del sys.modules[name]
    for name in packages:
        sys.modules[name] = _package(name)
    for name in absent:
        sys.modules[name] = MagicMock(__name__=name)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if _root(name) in roots]:
            del sys.modules[name]
        sys.modules.update(before)


def _root(name: str) -> str:
    return name.partition(".")[0]


def _package(name: str) -> Any:
    """A package of the same folder as the real one, with nothing in it but its modules."""
    above = name.rpartition(".")[0]
    spec = PathFinder.find_spec(name, sys.modules[above].__path__ if above else None)
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip(f"{name} is not installed", allow_module_level=True)
    module = ModuleType(name)
    module.__path__ = spec.submodule_search_locations
    module.__spec__ = spec
    return module
