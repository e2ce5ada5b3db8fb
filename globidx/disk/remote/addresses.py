"""URLs: where they lead, and how they are shown, which is without credentials."""

from __future__ import annotations

import re

#: The query of a URL, which may be signed, and a user with a password before the host.
_QUERY = re.compile(r"(?<=\S)\?[^\s\"'<>]*=[^\s\"'<>]*")
_USER = re.compile(r"(?<=://)[^/\s]+@")
_SPELLED = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#]*)(/?)([^?#]*)(\?[^#]*)?", re.IGNORECASE)


def redacted(text: str) -> str:
    """A text without the queries and passwords of the URLs in it.

    >>> redacted("no https://me:word@host/a.zarr?sig=abc&x=1, sorry")
    'no https://host/a.zarr?... sorry'
    """
    return _USER.sub("", _QUERY.sub("?...", text))


def refuse_secrets(url: str) -> None:
    """ValueError where a URL has a query or a password in it: paths stand in indexes, logs and errors."""
    shown = redacted(url)
    if shown != url:
        raise ValueError(
            f"{shown} was given with a query or a password, and the paths of files are kept in the index and shown in "
            "errors; give the URL without it, and what it says as options of the file system: "
            'storage_options={"params": {"sig": "..."}} for a signed URL, {"key": ..., "secret": ...} for S3'
        )


def split(url: str) -> tuple[str, str, str, str] | None:
    """Protocol, origin, key and query of a URL; None of a chain, or what is no URL.

    The origin is what all its objects have in common: a bucket, or a server.

    >>> split("s3://bucket/data/a.zarr")
    ('s3', 's3://bucket', 'data/a.zarr', '')
    >>> split("https://host:80/a.zarr?sig=abc")
    ('https', 'https://host:80', 'a.zarr', 'sig=abc')
    """
    match = None if "::" in url else _SPELLED.fullmatch(url)
    if match is None:
        return None
    protocol, host, _, key, query = match.groups(default="")
    # a glob has a question mark, too, and no query without an equals sign is a signature
    if query and "=" not in query:
        return None
    origin = f"{protocol.lower()}://{host}"
    return protocol.lower(), origin, key.strip("/"), query.lstrip("?")
