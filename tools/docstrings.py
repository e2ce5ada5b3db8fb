#!/usr/bin/env python3
"""Which public definitions of globidx lack a section of their docstring.

Public is whatever ``globidx.__all__`` names, what the modules among these export, and the public methods and
properties of all these classes. What each definition needs, in the words of numpydoc:

* a summary: one line that ends with a full stop;
* *Parameters* with each parameter by its name, and no other; a class describes those of its constructor;
* *Returns* or *Yields*, if a function or method returns a value; a property returns what its summary says;
* *Raises*, with each error class that the body raises by name;
* *Examples* that run, for classes and functions. Error classes need a summary only: each takes one string.

A section that the same method of a base class has need not be repeated where it is overridden.

Usage: ``python tools/docstrings.py``
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from enum import Enum
from types import ModuleType
from typing import Any, NamedTuple, Protocol


class Definition(NamedTuple):
    """A class, function, method or property, and the docstrings that speak of it: its own, and those it overrides."""

    name: str
    value: Any
    docstrings: list[str]
    is_member: bool


_HEADING = re.compile(r"^(\w[\w ]*)\n-{3,}[ ]*$", re.MULTILINE)
_NOTHING = {"None", "NoReturn", "Never", ""}


def public_definitions(package: ModuleType) -> Iterator[Definition]:
    """Classes and functions that a user can name, and the public members of the classes; each once."""
    seen = set()
    for name, value in _exported(package, package.__name__):
        if inspect.isclass(value) or inspect.isfunction(value):
            members = _members(name, value) if inspect.isclass(value) else []
            for definition in [Definition(name, value, [value.__doc__ or ""], False), *members]:
                if id(definition.value) not in seen:
                    seen.add(id(definition.value))
                    yield definition


def _exported(module: ModuleType, path: str) -> Iterator[tuple[str, Any]]:
    names = getattr(module, "__all__", None) or [
        name for name in vars(module) if not name.startswith("_")
    ]
    for name in names:
        value = getattr(module, name)
        if isinstance(value, ModuleType):
            if value.__name__.startswith("globidx."):
                yield from _exported(value, f"{path}.{name}")
        elif getattr(value, "__module__", "").startswith("globidx"):
            yield f"{path}.{name}", value


def _members(path: str, owner: type) -> Iterator[Definition]:
    """Public methods and properties, also those of private base classes of globidx; fields are parameters."""
    found: dict[str, list[Any]] = {}
    for base in owner.__mro__:
        if base.__module__.startswith("globidx"):
            for name, member in vars(base).items():
                found.setdefault(name, []).append(member)
    for name, members in found.items():
        if not name.startswith("_") and (_is_called(members[0]) or _is_computed(members[0])):
            yield Definition(
                f"{path}.{name}", members[0], [member.__doc__ or "" for member in members], True
            )


def _is_called(member: Any) -> bool:
    return inspect.isfunction(member) or isinstance(member, (classmethod, staticmethod))


def _is_computed(member: Any) -> bool:
    return isinstance(member, property) or type(member).__name__ == "cached_property"


def sections(docstring: str) -> dict[str, str]:
    r"""The text of each section by its heading; what stands before the first one is ``""``.

    >>> sections("Adds.\n\nReturns\n-------\nint\n    The sum.")
    {'': 'Adds.', 'Returns': 'int\n    The sum.'}
    """
    parts = _HEADING.split(docstring)
    return dict(
        zip(["", *parts[1::2]], (part.strip() for part in [parts[0], *parts[2::2]]), strict=True)
    )


def described(section: str) -> set[str]:
    """The names that a section describes: ``a : int``, ``b, c``, ``*args`` at the start of lines."""
    lines = [line for line in section.splitlines() if line and not line[0].isspace()]
    return {name.strip().lstrip("*") for line in lines for name in line.split(" : ")[0].split(",")}


def problems(definition: Definition) -> list[str]:
    """What the docstring of a definition lacks, in a few words each."""
    value = definition.value
    found: dict[str, str] = {}
    for docstring in definition.docstrings:
        found = sections(inspect.cleandoc(docstring)) | {
            name: text for name, text in found.items() if text
        }
    if definition.is_member:
        return [*_summary(found), *_of_function(_function(value), found, value)]
    if inspect.isfunction(value):
        own = _of_function(value, found, value)
    elif issubclass(value, BaseException):
        return _summary(found)
    # nobody calls the constructor of a protocol or of an enumeration
    elif Protocol in value.__bases__ or issubclass(value, Enum):
        own = []
    else:
        own = [*_parameters(value, found), *_constructor_raises(value, found)]
    example = found.get("Examples", "")
    return [
        *_summary(found),
        *own,
        *([] if ">>> " in example and "+SKIP" not in example else ["no Examples that run"]),
    ]


def _of_function(function: Any, found: dict[str, str], member: Any) -> list[str]:
    if not _is_called(member):
        return _raises(function, found)
    return [*_parameters(function, found), *_returns(function, found), *_raises(function, found)]


def _function(member: Any) -> Any:
    """The function behind a method or a property."""
    if isinstance(member, property):
        return member.fget
    return (
        getattr(member, "__func__", None)
        or getattr(member, "_compute", None)
        or getattr(member, "func", member)
    )


def _summary(found: dict[str, str]) -> list[str]:
    first = found[""].split("\n\n")[0]
    if not first:
        return ["no summary"]
    return (
        []
        if "\n" not in first and first.endswith(".")
        else ["summary is not one line with a full stop"]
    )


def _parameters(called: Any, found: dict[str, str]) -> list[str]:
    try:
        names = [
            name
            for name in inspect.signature(called).parameters
            if name not in ("self", "cls") and name[0] != "_"
        ]
    except ValueError:
        return []
    wanted, there = set(names), described(found.get("Parameters", ""))
    if wanted and "Parameters" not in found:
        return ["no Parameters"]
    lacking = [f"Parameters lacks {name}" for name in names if name in wanted - there]
    return [*lacking, *(f"Parameters has {name}, which is none" for name in sorted(there - wanted))]


def _returns(function: Any, found: dict[str, str]) -> list[str]:
    returned = str(inspect.get_annotations(function).get("return", ""))
    return [] if returned in _NOTHING or found.keys() & {"Returns", "Yields"} else ["no Returns"]


def _raises(function: Any, found: dict[str, str]) -> list[str]:
    raised = [error for error in raised_by(function) if error != "NotImplementedError"]
    if raised and "Raises" not in found:
        return ["no Raises"]
    there = {name.rpartition(".")[2] for name in described(found.get("Raises", ""))}
    return [
        f"Raises lacks {error}" for error in sorted({*raised} - there) if error.endswith("Error")
    ]


def _constructor_raises(owner: type, found: dict[str, str]) -> list[str]:
    makers = [vars(owner).get(name) for name in ("__new__", "__init__", "__post_init__")]
    return [text for maker in makers if inspect.isfunction(maker) for text in _raises(maker, found)]


def raised_by(function: Any) -> list[str]:
    """What the body of a function raises itself; functions inside it are not looked into."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (
        OSError,
        TypeError,
        SyntaxError,
    ):  # made by a decorator such as dataclass: there is no source
        return []
    found, left = [], list(ast.iter_child_nodes(tree))
    while left:
        node = left.pop()
        if isinstance(node, ast.Raise) and node.exc is not None:
            error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            found.append(ast.unparse(error).rpartition(".")[2])
        elif not isinstance(node, (ast.FunctionDef, ast.Lambda, ast.ClassDef)):
            left += ast.iter_child_nodes(node)
    return found


if __name__ == "__main__":
    import globidx

    definitions = {
        definition.name: problems(definition) for definition in public_definitions(globidx)
    }
    incomplete = {name: lacks for name, lacks in definitions.items() if lacks}
    for name, lacks in incomplete.items():
        print(f"{name}: {'; '.join(lacks)}")
    print(
        f"{len(definitions) - len(incomplete)} of {len(definitions)} public definitions are complete"
    )
    sys.exit(bool(incomplete))
