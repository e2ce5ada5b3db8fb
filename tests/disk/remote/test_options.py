"""Options of fsspec in the words of obstore, or the name of the one that it does not know."""

import pytest

from globidx.disk.remote.options import is_in_profile, translated


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
