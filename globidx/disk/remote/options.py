"""``storage_options``, which are spelled as fsspec has them, in the words of obstore."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
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
#: Credentials and settings, of which none says what lies where a URL leads. Their names end so, or
#: are these; what has another name may say it.
_NEVER_WHERE = re.compile(
    "(?:.*[_-])?(?:key|secret|token|password|credentials?|auth|authorization|cookies?|timeout|retries)"
)
_SETTINGS = _OF_FSSPEC | set(
    "anon access_key_id aws_access_key_id client_id tenant_id session request_session service_account "
    "skip_signature region region_name use_ssl ssl verify trust_env requester_pays version_aware project access "
    "consistency secure_serialize check_connection cache_regions cache_timeout default_location "
    "config_kwargs session_kwargs connector loop batch_size max_concurrency fixed_upload_size "
    "block_size blocksize default_block_size default_cache_type default_fill_cache cache_type cache_options "
    "simple_links same_scheme size_policy max_paths cache_storage cache_check check_files expiry_time same_names "
    "accept-encoding user-agent connection_string auto_mkdir".split()
)
#: What stands in the query of a signed URL.
_OF_SIGNATURES = re.compile(
    "x-amz-.*|x-goog-.*|awsaccesskeyid|googleaccessid|key-pair-id|signature|expires|policy|"
    "(?:access_|api_|auth)?token|api_?key|"
    "sig|sv|ss|srt|sp|se|st|spr|sr|sip|si|skoid|sktid|skt|ske|sks|skv|saoid|suoid|scid|sdd"
)


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

    The same bucket of another server, or the same container of another account, is another one. Of
    options that are not known, any may say it: they are told apart by a digest.

    >>> server_of({"s3": {"key": "me", "client_kwargs": {"endpoint_url": "http://minio:9000"}}})
    'http://minio:9000'
    >>> server_of({"fo": "a.zip"}) == server_of({"fo": "b.zip"})
    False
    """
    options = options or {}
    told = [os.environ[name] for name in _WHERE_IN_ENVIRONMENT if name in os.environ]
    places = sorted({redacted(one) for one in [*told, *_placing(options)]})
    return " ".join([*places, *_digest(list(_unknown(options)))])


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


def _unknown(options: Mapping[str, Any], within: tuple[str, ...] = ()) -> Iterator[Any]:
    """The options that are no known place, setting or credential, each with the names that lead to it."""
    for name, value in options.items():
        lower = str(name).lower()
        known = lower in _SETTINGS or _NEVER_WHERE.fullmatch(lower)
        if "params" in within:
            known = _OF_SIGNATURES.fullmatch(lower)
        if value is None or known or name in _WHERE:
            continue
        # what is opened may be given as a dict, in which names are those of data
        if isinstance(value, Mapping) and name != "fo":
            yield from _unknown(value, (*within, str(name)))
        else:
            yield [*within, str(name)], value


def _digest(options: list[Any]) -> Iterator[str]:
    """What options are told apart by, which does not tell them; nothing of none."""
    if options:
        spelled = _spelled(sorted(options, key=lambda one: one[0]))
        digest = hashlib.blake2b(spelled, digest_size=8, person=b"globidx-options")
        yield f"options:{digest.hexdigest()}"


def _spelled(value: Any) -> bytes:
    """A value as bytes, the same ones in each process."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, Mapping):
        return b"{%b}" % _joined(sorted(map(_spelled, value.items())))
    if isinstance(value, (list, tuple)):
        return b"[%b]" % _joined(map(_spelled, value))
    if isinstance(value, (str, bytes, int, float)):
        return repr(value).encode("utf-8", "surrogateescape")
    with suppress(Exception):
        return pickle.dumps(value)
    # nothing proves of another one that it is the same
    return os.urandom(16)


def _joined(parts: Iterable[bytes]) -> bytes:
    return b"".join(b"%d:%b" % (len(part), part) for part in parts)


def is_in_profile(family: str, made: Mapping[str, Any]) -> bool:
    """Whether credentials of S3 stand where boto alone looks: in a file, by a profile."""
    if family != "s3" or made.keys() & {"access_key_id", "skip_signature"}:
        return False
    environ = os.environ
    if environ.keys() & {"AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"}:
        return False
    shared = environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    return "AWS_PROFILE" in environ or os.path.exists(os.path.expanduser(shared))
