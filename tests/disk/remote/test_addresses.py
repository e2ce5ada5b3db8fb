"""URLs are taken apart, and shown without what is secret in them."""

import pytest

from globidx.disk.remote.addresses import redacted, split

SECRETS = [
    (
        "GET http://127.0.0.1:80/a/x?X-Amz-Signature=hunter2&b=1 failed",
        "GET http://127.0.0.1:80/a/x?... failed",
    ),
    ("s3://key:hunter2@bucket/x", "s3://bucket/x"),
    ("s3://key:hunt@er2@bucket/x", "s3://bucket/x"),
    ("url='http://h:1/?sig=hunter2'", "url='http://h:1/?...'"),
    ("http://h/(a)?sig=hunter2, http://h/%3F?s=hunter2", "http://h/(a)?... http://h/%3F?..."),
    ('at "https://host/x.zarr?sig=hunter2"', 'at "https://host/x.zarr?..."'),
    ("twice https://h/a?s=hunter2 https://h/b?s=hunter2", "twice https://h/a?... https://h/b?..."),
]


@pytest.mark.parametrize(("text", "shown"), SECRETS)
def test_no_query_and_no_password_is_shown(text, shown):
    """Wherever a URL stands in a text; what it leads to is still told."""
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text", ["where is it?", "s3://bucket/?.zarr", "a question? yes=no", "x@y"]
)
def test_other_texts_stay_as_they_are(text):
    """A glob and a question have question marks, too."""
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("s3://bucket", ("s3", "s3://bucket", "", "")),
        ("S3://bucket/a//b.zarr/", ("s3", "s3://bucket", "a//b.zarr", "")),
        ("http://h:1/a?x=1&y=2", ("http", "http://h:1", "a", "x=1&y=2")),
        ("http://h/?.zarr", None),
        ("zip://a::s3://b/c", None),
        ("/data/a.zarr", None),
        ("memory://x/y", ("memory", "memory://x", "y", "")),
    ],
)
def test_a_url_is_origin_key_and_query(url, parts):
    """Chains, globs and local paths are none."""
    assert split(url) == parts
