"""URLs: where they lead, and how they are shown, which is without credentials."""

from __future__ import annotations

import re

#: To the next white space, but for a quote in front of that. Other quotes may be a secret's own.
_REST = r"\S*?(?=[\"']?(?:\s|$))"
#: Query and fragment of HTTP, where nothing else has such marks, and the query of another URL, in which
#: a glob may have a question mark.
_QUERY_OF_HTTP = re.compile(rf"(https?://[^\s?#]*[?#]){_REST}", re.IGNORECASE)
_QUERY = re.compile(rf"(?<=\S)\?\S*={_REST}")
#: A user with a password before the host, in which there may be a slash: no port stands before that.
_USER = re.compile(r"(?<=://)(?:[^/\s?#@:\[]*:(?!:|\d*(?:[/?#\s]|$))(?:[^\s?#]*|\S*)@|[^/\s?#]+@)")
_SPELLED = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#]*)(/?)([^?#]*)(\?[^#]*)?", re.IGNORECASE)


def redacted(text: str) -> str:
    """A text without the queries, fragments and passwords of the URLs in it.

    >>> redacted("no https://me:word@host/a.zarr?sig=abc&x=1, sorry")
    'no https://host/a.zarr?... sorry'
    """
    # a password may have the mark of a query in it
    text = _USER.sub("", text)
    return _QUERY.sub("?...", _QUERY_OF_HTTP.sub(r"\1...", text))


def refuse_secrets(url: str) -> None:
    """ValueError where a URL has a query, a fragment or a password in it.

    Paths stand in indexes, logs and errors.
    """
    # in a text, a URL ends where white space is
    url = re.sub(r"\s", "%20", url)
    shown = redacted(url)
    if shown != url:
        raise ValueError(
            f"{shown} was given with a query or a password in it, or a fragment, and the paths of files are kept in "
            "the index and shown in errors; give the URL without it, and what it says as options of the file system: "
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
