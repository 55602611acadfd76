"""URLs as they are shown: nothing secret in messages, settings that are kept, and predictions."""

from __future__ import annotations

import pytest

from spe_dist.config.loading import describe_differences, differences, load_config, load_yaml, resolve, to_yaml
from spe_dist.data.shards.store import ShardStore
from spe_dist.data.shards.transport import file_system, read_url
from spe_dist.errors import ConfigError, DataError
from spe_dist.utils.wording import shown_url

SECRET = "https://host/shards?sig=SECRET&x=SECRET"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:SECRET@host:1/a/b?x=1", "https://***@host:1/a/b?x=***"),
        ("https://host/a?SECRET", "https://host/a?***"),
        (SECRET, "https://host/shards?sig=***&x=***"),
        ("s3://bucket/part-0?.txt", "s3://bucket/part-0?.txt"),
        ("s3://key@bucket/a", "s3://***@bucket/a"),
        ("pipe:curl -u me https://host/{}?x=1", "pipe:curl -u me https://host/{}?x=1"),
        ("runs/a?x=1", "runs/a?x=1"),
        ("https://[::1/a", "https://[::1/a"),
    ],
)
def test_secrets_are_hidden_and_all_else_stays(url, shown):
    assert shown_url(url) == shown


def test_settings_are_kept_without_secrets_and_asked_for_again(tmp_path):
    config = resolve([{"shards": SECRET}])
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    assert "SECRET" not in file.read_text()
    saved = resolve([load_yaml(file)])
    assert differences(saved, config) == {}  # another token is no other setting
    changed = differences(saved, resolve([{"shards": "https://host/others?sig=SECRET"}]))
    assert describe_differences(changed) == f"shards=https://host/others?sig=*** (was {shown_url(SECRET)})"
    with pytest.raises(ConfigError, match=r"lacks what was secret in it.*--shards"):
        load_config(preset=None, yaml_file=str(file), given={})
    assert load_config(preset=None, yaml_file=str(file), given={"shards": SECRET}).data.shards == SECRET


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://user:SECRET@127.0.0.1:9/x?token=SECRET", r"cannot be opened: user and password in a URL are not sent"),
        ("http://127.0.0.1:9/a b?token=SECRET", r"cannot be opened: it holds spaces or control characters"),
        ("http://[::1/x?token=SECRET", r"is not a URL: Invalid IPv6"),
        ("reference://{}::file:///refs.json", r"chains of URLs with `::` are not followed"),
        ("github://x", r"cannot be opened: .*missing 2 required"),
        ("generic://x", r"cannot be opened"),
    ],
)
def test_what_cannot_be_opened_is_one_line_without_secrets_at_once(url, message):
    with pytest.raises(DataError, match=message) as error:
        ShardStore.open(url)
    assert "SECRET" not in str(error.value) and str(error.value).count("cannot be opened") <= 1


def test_an_unreachable_server_is_named_without_secrets(monkeypatch):
    monkeypatch.setattr("spe_dist.data.shards.transport.FIRST_PAUSE_S", 0.0)
    with pytest.raises(
        DataError, match=r"http://127\.0\.0\.1:9/x\?token=\*\*\* cannot be fetched \(4 attempts\)"
    ) as error:
        read_url("http://127.0.0.1:9/x?token=SECRET")
    assert "SECRET" not in str(error.value)


def test_a_missing_package_is_said_once():
    with pytest.raises(DataError, match=r"^git://x/manifest.json cannot be opened: (?!.*cannot be opened)"):
        ShardStore.open("git://x")
    with pytest.raises(ValueError, match="not followed"):
        file_system("simplecache::s3://bucket/a")
