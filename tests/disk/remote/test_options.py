"""Options of fsspec in the words of obstore, or the name of the one that it does not know."""

import pytest
from files import run_python

from globidx.disk.remote.options import is_in_profile, server_of, translated


@pytest.mark.parametrize(
    ("protocol", "options", "made"),
    [
        ("s3", None, {}),
        ("s3", {"anon": True}, {"skip_signature": True}),
        ("s3", {"key": "k", "secret": "s", "token": "t"}, {"access_key_id": "k", "secret_access_key": "s", "session_token": "t"}),
        ("s3", {"endpoint_url": "http://h", "client_kwargs": {"region_name": "r"}}, {"endpoint": "http://h", "region": "r"}),
        ("s3", {"s3": {"anon": True}}, {"skip_signature": True}),
        ("s3", {"profile": "me"}, "profile"),
        ("s3", {"session": object()}, "session"),
        ("s3", {"client_kwargs": {"verify": False}}, "verify"),
        ("gs", {"token": "anon"}, {"skip_signature": True}),
        ("gs", {"token": "/k.json"}, {"service_account": "/k.json"}),
        ("gs", {"token": "cloud"}, "token"),
        ("az", {"account_name": "a", "account_key": "k"}, {"account_name": "a", "account_key": "k"}),
        ("http", {"headers": {"A": "b"}, "skip_instance_cache": True}, {"headers": {"A": "b"}}),
        ("http", {"client_kwargs": {"auth": object()}}, "auth"),
        ("https", {"https": {"headers": {"A": "b"}}}, {"headers": {"A": "b"}}),
    ],
)  # fmt: skip
def test_options_are_translated_or_named(protocol, options, made):
    """All of them, or none: half of the credentials would ask as somebody else."""
    assert translated(protocol, options) == made


def test_a_profile_is_left_to_boto(monkeypatch, tmp_path):
    """Keys in the environment or the options come first, as they do there."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    assert not is_in_profile("s3", {})
    (tmp_path / "credentials").touch()
    assert is_in_profile("s3", {}) and not is_in_profile("gs", {})
    assert not is_in_profile("s3", {"access_key_id": "k"})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    assert not is_in_profile("s3", {})


@pytest.mark.parametrize(
    ("some", "others"),
    [
        ({"fo": "/data/1.zip"}, {"fo": "/data/2.zip"}),
        ({"fo": {"refs": {"token": "a"}}}, {"fo": {"refs": {"token": "b"}}}),
        ({"zip": {"fo": "1.zip"}}, {"zip": {"fo": "2.zip"}}),
        ({"params": {"version": "1"}}, {"params": {"version": "2"}}),
        ({"params": {"key": "1"}}, {"params": {"key": "2"}}),
        ({"headers": {"X-Version": "1"}}, {"headers": {"X-Version": "2"}}),
        ({"remote_options": {"sha": "1"}}, {"target_options": {"sha": "1"}}),
        ({"unheard_of": [1, (2, b"3")]}, {"unheard_of": [1, (2, b"4")]}),
        ({"unheard_of": 1 + 2j}, {"unheard_of": 1 + 3j}),
        ({"unheard_of": 1}, {}),
        ({"endpoint_url": "http://a"}, {"endpoint_url": "http://b"}),
        ({"f": lambda: 1}, {"f": lambda: 1}),
    ],
)
def test_other_options_are_another_place_unless_they_are_known_for_none(some, others):
    """Of one that nobody here knows, nothing proves that it leads to the same bytes."""
    assert server_of(some) != server_of(others)
    assert not any("data" in one or "Version" in one for one in map(server_of, (some, others)))


@pytest.mark.parametrize(
    "options",
    [
        None,
        {},
        {"anon": True},
        {"key": "k", "secret": "s", "token": "t", "client_kwargs": {"region_name": "r", "aws_session_token": "t"}},
        {"s3": {"anon": True, "default_block_size": 5}, "simplecache": {"cache_storage": "/tmp"}},
        {"headers": {"Authorization": "Bearer hunter2", "X-Api-Key": "hunter2"}, "timeout": 3},
        {"params": {"sig": "hunter2", "se": "2030", "X-Amz-Signature": "hunter2"}, "block_size": 2**20},
        {"sas_token": "hunter2", "client_id": "me", "client_secret": "hunter2", "connection_timeout": 3},
        {"config_kwargs": {"retries": {"mode": "standard"}}, "skip_instance_cache": True, "fo": None},
    ],
)  # fmt: skip
def test_credentials_and_settings_are_no_place(options, monkeypatch):
    """What is kept under a URL is found when they change, or are left out."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert server_of(options) == ""


def test_the_same_options_are_the_same_place_in_each_process(tmp_path):
    """However they are sorted, and whatever hash seed strings have there."""
    options = {"fo": tmp_path / "a.zip", "params": {"b": "1", "a": {"x": [1.5, None, True]}}}
    turned = {"params": {"a": {"x": (1.5, None, True)}, "b": "1"}, "fo": str(tmp_path / "a.zip")}
    code = "import sys; from globidx.disk.remote.options import server_of; print(server_of(eval(sys.argv[1])))"
    told = run_python(code, repr(turned)).stdout.strip()
    assert server_of(options) == server_of(turned) == told
    assert server_of(options | {"endpoint_url": "http://h"}) == f"http://h {told}"
