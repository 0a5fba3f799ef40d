"""Settings: file, environment and command line; every setting is documented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from esplanade.core.errors import InvalidInput, NotFound
from esplanade.doctor import examine
from esplanade.settings import Settings, load_settings
from gateway.code_providers import Sms, Smtp

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    import os

    for name in list(os.environ):
        if name.startswith("ESPLANADE_"):
            monkeypatch.delenv(name)


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "esplanade.toml").write_text("shards = 3\ntick_deadline_s = 5.0\nhost = '::1'\n")
    monkeypatch.setenv("ESPLANADE_TICK_DEADLINE_S", "7")
    settings = load_settings(host="127.0.0.2")
    assert (settings.shards, settings.tick_deadline_s, settings.host) == (3, 7.0, "127.0.0.2")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("shards = 0", "shards = 0"),
        ("shards = 'many'", "shards = 'many'"),
        ("shard = 1", "unknown settings shard"),
        ("shards = ", "not TOML"),
    ],
)
def test_a_bad_file_gets_an_error_that_names_value_and_rule(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "esplanade.toml").write_text(text)
    with pytest.raises(InvalidInput, match=says):
        load_settings()


def test_a_bad_master_key_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPLANADE_MASTER_KEY", "c0ffee")
    with pytest.raises(InvalidInput, match="64 hexadecimal digits") as error:
        load_settings()
    assert "c0ffee" not in str(error.value)
    monkeypatch.setenv("ESPLANADE_MASTER_KEY", "ab" * 32)
    settings = load_settings()
    assert settings.master_key_bytes == b"\xab" * 32
    assert "abab" not in repr(settings)


def test_an_unknown_variable_is_an_error_and_not_silently_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPLANADE_POSTGRES", "postgresql://localhost/x")
    with pytest.raises(InvalidInput, match="ESPLANADE_POSTGRES"):
        load_settings()


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        load_settings(config=tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"tls_certificate": "chain.pem"}, "tls_key"),
        ({"default_plan": "large"}, "large"),
        ({"tenant_plans": {"demo": "large"}, "plans": {"small": {"requests_per_s": 5}}}, "large"),
        ({"plans": {"small": {"requests_per_s": 0}}}, "requests_per_s"),
        ({"issuers": [{"issuer": "https://id.example", "audience": "a", "colour": "red"}]}, "colour"),
        ({"blob_url": "https://storage.example/malls"}, "blob_url"),
        ({"blob_url": "s3://malls", "blob_dir": "blobs"}, "blob_url"),
    ],
)
def test_what_does_not_belong_together_is_said(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInput, match=named) as refused:
        load_settings(**settings, master_key="ab" * 32)
    assert "abab" not in str(refused.value)


TWILIO = {"kind": "twilio", "account": "AC" + "0" * 32, "sender": "+15005550006"}
WEBHOOK = {"kind": "webhook", "url": "https://sms.example/codes"}
SIGNS = "whsec_" + "c2VjcmV0" * 5


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"smtp": {"host": "m", "sender": "codes"}}, "smtp.sender"),
        ({"smtp": {"host": "m", "sender": "a@b.c, d@e.f"}}, "smtp.sender"),
        ({"smtp": {"host": "m", "sender": "a@b.c", "security": "none"}}, "smtp.security"),
        ({"smtp": {"host": "m", "sender": "a@b.c", "username": "codes"}}, "smtp.username and smtp_password"),
        ({"smtp": {"host": "m", "sender": "a@b.c", "password": "hunter2"}}, "smtp.password: Extra inputs"),
        ({"smtp": "hunter2"}, "smtp: "),
        ({"smtp_password": "hunter2"}, "smtp.username and smtp_password"),
        ({"sms": TWILIO}, "sms_secret"),
        ({"sms_secret": "hunter2"}, "`sms`, which is not there"),
        ({"sms": TWILIO | {"account": "hunter2"}, "sms_secret": "hunter2"}, "sms.account"),
        ({"sms": TWILIO | {"sender": "a name that is too long"}, "sms_secret": "hunter2"}, "sms.sender"),
        ({"sms": TWILIO | {"url": "http://api.example"}, "sms_secret": "hunter2"}, "sms.url"),
        ({"sms": TWILIO | {"prefixes": ["49"]}, "sms_secret": "hunter2"}, r"sms.prefixes.0"),
        ({"sms": WEBHOOK, "sms_secret": "whsec_hunter2"}, "24 to 64 random bytes"),
        ({"sms": WEBHOOK, "sms_secret": "hunter2" * 9}, "must be whsec_"),
        ({"sms": WEBHOOK | {"url": "http://sms.example/"}, "sms_secret": SIGNS}, "https://"),
        ({"sms": WEBHOOK | {"url": "https://a:hunter2@sms.example/"}, "sms_secret": SIGNS}, "without user"),
        ({"sms": WEBHOOK | {"sender": "Mall"}, "sms_secret": SIGNS}, "twilio's"),
    ],
)
def test_a_provider_of_codes_that_lacks_something_is_refused_and_no_secret_is_repeated(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInput, match=named) as refused:
        load_settings(**settings)
    assert "hunter2" not in str(refused.value)


def test_secrets_of_providers_come_from_the_environment_and_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "esplanade.toml").write_text(
        "[smtp]\nhost = 'smtp.example'\nsender = 'Mall <codes@mall.example>'\nusername = 'codes'\n[sms]\nkind = 'webhook'\nurl = 'http://127.0.0.1:8000/'\nprefixes = ['+49']\nper_hour = 500\n"
    )
    monkeypatch.setenv("ESPLANADE_SMTP_PASSWORD", "hunter2")
    monkeypatch.setenv("ESPLANADE_SMS_SECRET", SIGNS)
    settings = load_settings()
    assert settings.smtp_config is not None
    assert settings.sms_config is not None
    assert (settings.smtp_config["port"], settings.smtp_config["password"], settings.sms_config["secret"]) == (587, "hunter2", SIGNS)
    assert msgspec.convert(settings.smtp_config, Smtp).sender == "Mall <codes@mall.example>"
    sms = msgspec.convert(settings.sms_config, Sms)
    assert (sms.kind, sms.prefixes, sms.per_hour) == ("webhook", ("+49",), 500)
    assert load_settings(smtp={"host": "m", "sender": "a@b.c", "security": "tls", "username": "codes"}).smtp_config["port"] == 465  # type: ignore[index]
    for shown in (repr(settings), repr(msgspec.convert(settings.smtp_config, Smtp)), repr(msgspec.convert(settings.sms_config, Sms))):
        assert "hunter2" not in shown
        assert SIGNS not in shown


def codes(settings: Settings) -> tuple[str, str]:
    [check] = [check for check in examine(settings) if check.name == "codes"]
    return check.state, check.found


def test_codes_are_simulated_where_nobody_but_who_sits_at_the_machine_can_come_and_it_is_said(tmp_path: Path) -> None:
    file = str(tmp_path / "messages.jsonl")
    smtp = {"host": "smtp.example", "sender": "codes@mall.example"}
    assert codes(load_settings(data_dir=tmp_path)) == ("ok", f"simulated: written to {file}")
    assert codes(load_settings(data_dir=tmp_path, smtp=smtp)) == ("ok", f"e-mail by smtp.example; simulated else: written to {file}")
    assert codes(load_settings(data_dir=tmp_path, code_provider="off")) == ("ok", "off: nobody signs in by a code")
    assert codes(load_settings(data_dir=tmp_path, host="0.0.0.0", smtp=smtp)) == ("ok", "e-mail by smtp.example")
    assert codes(load_settings(data_dir=tmp_path, host="0.0.0.0", code_provider="simulator")) == ("warning", f"simulated: written to {file}")
    assert codes(load_settings(data_dir=tmp_path, smtp=smtp | {"certificates": str(tmp_path / "ca.pem")}))[0] == "failed"


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    for name, field in Settings.model_fields.items():
        assert f"| `{name}` | `ESPLANADE_{name.upper()}` |" in page, name
        assert field.description is not None
        assert field.description in page, name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[tenants.demo]\nconsent = 'yes'", "tenants.demo.consent = 'yes'"),
        ("[tenants.demo]\nretention_days = 0", "tenants.demo.retention_days = 0"),
        ("[tenants.demo]\nretention = 30", "tenants.demo.retention"),
        ("[tenants.'a b']\nconsent = 'asked'", "tenant 'a b'"),
    ],
)
def test_a_tenant_answers_in_words_that_are_understood(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "esplanade.toml").write_text(text)
    with pytest.raises(InvalidInput, match=says):
        load_settings()


def people(settings: Settings) -> tuple[str, str, str]:
    [check] = [check for check in examine(settings) if check.name == "people"]
    return check.state, check.found, check.remedy


def test_the_doctor_says_who_has_not_answered_and_how_to(tmp_path: Path) -> None:
    assert people(load_settings()) == ("ok", "all embedded, on loopback: nobody is asked, nobody is erased", "")
    state, found, remedy = people(load_settings(postgres_url="postgresql://db/x"))
    assert (state, "[tenants.NAME]" in remedy) == ("warning", True)
    assert "strict" in found
    (tmp_path / "esplanade.toml").write_text(
        "host = '0.0.0.0'\ntenant_plans = { two = 'small' }\n[plans]\nsmall = { requests_per_s = 5 }\n[tenants.one]\nconsent = 'assumed'\n"
    )
    state, found, remedy = people(load_settings())
    assert (state, "retention_days" in remedy) == ("warning", True)
    assert "tenant one has not answered retention_days: who was silent for 30 days is erased" in found
    assert "tenant two has not answered consent and retention_days" in found
    (tmp_path / "esplanade.toml").write_text("host = '0.0.0.0'\n[tenants.one]\nconsent = 'assumed'\nretention_days = 365\n")
    assert people(load_settings()) == ("ok", "answered: one", "")
