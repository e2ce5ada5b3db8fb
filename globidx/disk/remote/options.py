"""``storage_options``, which are spelled as fsspec has them, in the words of obstore."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from globidx.disk.remote.addresses import redacted

#: Protocols that obstore reads, and what its configuration calls an option of fsspec.
_NAMES: dict[str, dict[str, str]] = {
    "s3": {
        "key": "access_key_id",
        "secret": "secret_access_key",
        "token": "session_token",
        "endpoint_url": "endpoint",
        "anon": "skip_signature",
        "region_name": "region",
        "aws_access_key_id": "access_key_id",
        "aws_secret_access_key": "secret_access_key",
        "aws_session_token": "session_token",
    },
    "gs": {"token": "service_account", "anon": "skip_signature"},
    "az": {
        "account_name": "account_name",
        "account_key": "account_key",
        "sas_token": "sas_token",
        "anon": "skip_signature",
        "tenant_id": "tenant_id",
        "client_id": "client_id",
        "client_secret": "client_secret",
    },
    "http": {"headers": "headers", "params": "params"},
}
_FAMILIES = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "gcs": "gs",
    "az": "az",
    "abfs": "az",
    "http": "http",
    "https": "http",
}
#: Options, and variables of the environment, that say where a URL leads.
_WHERE = {"endpoint_url", "endpoint", "account_name", "account_host", "host", "port", "base_url"}
_WHERE_IN_ENVIRONMENT = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "STORAGE_EMULATOR_HOST",
)
_ACCOUNT = re.compile("(?:AccountName|BlobEndpoint)=([^;?]*)")
#: Settings of fsspec's own, which change nothing of what is read.
_OF_FSSPEC = {"asynchronous", "skip_instance_cache", "use_listings_cache", "listings_expiry_time"}


def family_of(protocol: str) -> str | None:
    """What obstore calls a protocol; None of one that it does not read."""
    return _FAMILIES.get(protocol)


def translated(protocol: str, options: Mapping[str, Any] | None) -> dict[str, Any] | str:
    """The configuration of obstore that ``options`` mean; the name of the one that has no like in it.

    >>> translated("s3", {"anon": True, "client_kwargs": {"region_name": "eu-west-1"}})
    {'skip_signature': True, 'region': 'eu-west-1'}
    >>> translated("s3", {"session": object()})
    'session'
    """
    family = _FAMILIES[protocol]
    given = {**(options or {})}
    # of a chain, and of a single URL, too, each protocol may have its own
    given |= given.pop(protocol, {})
    given |= given.pop("client_kwargs", {})
    made: dict[str, Any] = {}
    for name, value in given.items():
        if name in _OF_FSSPEC or value is None:
            continue
        known = _NAMES[family].get(name)
        if known is None or not isinstance(value, (str, bool, Mapping)):
            return name
        if (family, name, value) == ("gs", "token", "anon"):
            made["skip_signature"] = True
        elif family == "gs" and name == "token" and not str(value).endswith(".json"):
            # a token of gcloud, or where to ask for one
            return name
        else:
            made[known] = value
    return made


def server_of(options: Mapping[str, Any] | None) -> str:
    """What of the options, and of the environment, says where a URL leads; no secret is in it.

    The same bucket of another server, or the same container of another account, is another one.

    >>> server_of({"s3": {"key": "me", "client_kwargs": {"endpoint_url": "http://minio:9000"}}})
    'http://minio:9000'
    """
    told = [os.environ[name] for name in _WHERE_IN_ENVIRONMENT if name in os.environ]
    return " ".join(sorted({redacted(one) for one in [*told, *_placing(options or {})]}))


def _placing(options: Mapping[str, Any]) -> Iterator[str]:
    """The options that say where a URL leads, those of options within options among them."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _placing(value)
        elif name in _WHERE and value is not None:
            yield str(value)
        elif name == "connection_string":
            # the rest of it is a secret
            yield from (one[1] for one in _ACCOUNT.finditer(str(value)))


def is_in_profile(family: str, made: Mapping[str, Any]) -> bool:
    """Whether credentials of S3 stand where boto alone looks: in a file, by a profile."""
    if family != "s3" or made.keys() & {"access_key_id", "skip_signature"}:
        return False
    environ = os.environ
    if environ.keys() & {"AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"}:
        return False
    shared = environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    return "AWS_PROFILE" in environ or os.path.exists(os.path.expanduser(shared))
