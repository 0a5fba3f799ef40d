"""Settings: one documented tree, read from a TOML file and `ESPLANADE_*` in the environment (which wins). docs/settings.md lists them.

Owns names, types, defaults and limits. Never opens a connection or makes a directory.
"""

from __future__ import annotations

import base64
import os
import re
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from esplanade.core.errors import InvalidInput, NotFound
from esplanade.core.ids import check_name

if TYPE_CHECKING:
    from gateway.answers import Answers

CONFIG_VARIABLE = "ESPLANADE_CONFIG"
"""Names the TOML file; without it, `esplanade.toml` in the current directory is read if it is there."""


LOOPBACK = ("127.0.0.1", "::1", "localhost")


def default_data_dir() -> Path:
    """Where embedded servers keep their data.

    `$XDG_DATA_HOME/esplanade` or `~/.local/share/esplanade`. For root it is `/var/tmp/esplanade`: the embedded PostgreSQL then runs as a user of its own, which
    must be able to reach the directory, and root's home is closed to it.
    """
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/tmp/esplanade")
    base = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return Path(base) / "esplanade"


class IssuerSettings(BaseModel):
    """An OpenID Connect issuer whose tokens are believed; docs/security.md says what each field means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str
    audience: str
    jwks: str = ""
    algorithms: tuple[Literal["RS256", "ES256", "EdDSA"], ...] = ("RS256", "ES256", "EdDSA")
    tenant: str | None = None
    tenant_claim: str | None = None
    tenants: tuple[str, ...] = ()
    role_claim: str | None = None
    roles: dict[str, Literal["guest", "shopper", "feed", "operator", "engineer"]] = {}
    default_role: Literal["guest", "shopper", "feed", "operator", "engineer", "none"] = "shopper"
    acr: tuple[str, ...] = ("mfa", "otp", "hwk")


class PlanSettings(BaseModel):
    """What a tenant of the plan may do: requests a second over all gateways, connections at once on each, and which permissions nobody of it has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_s: Annotated[int, Field(ge=1, le=10_000_000)]
    connections: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000_000
    without: tuple[str, ...] = ()


class TenantSettings(BaseModel):
    """What a tenant answers about its people; docs/security.md says what is in force until it has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    consent: Literal["asked", "assumed"] | None = None
    retention_days: Annotated[int, Field(ge=1, le=3_660)] | None = None


class SmtpSettings(BaseModel):
    """A mail server that takes our messages, encrypted always; docs/security.md says what each field means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: Annotated[str, Field(min_length=1, max_length=253)]
    sender: Annotated[str, Field(max_length=320, pattern=r"^([^<>@\r\n]*<[!-;=?A-~]+@[!-;=?A-~]+>|[!-;=?A-~]+@[!-;=?A-~]+)$")]
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    security: Literal["starttls", "tls"] = "starttls"
    username: str = ""
    certificates: Path | None = None


class SmsSettings(BaseModel):
    """An SMS provider that takes our messages over HTTP; docs/security.md says what each field means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["webhook", "twilio"]
    url: Annotated[str, Field(max_length=2_000)] = ""
    account: str = ""
    key: str = ""
    sender: Annotated[str, Field(max_length=64)] = ""
    certificates: Path | None = None
    prefixes: Annotated[tuple[Annotated[str, Field(pattern=r"^\+[1-9][0-9]{0,13}$")], ...], Field(max_length=300)] = ()
    per_hour: Annotated[int, Field(ge=1, le=1_000_000)] | None = None

    def check(self, secret: str | None) -> None:
        """Raises ValueError, in words that hold no secret."""
        if not secret:
            raise ValueError("sms: sms_secret must be there too (of a webhook the key that signs, of twilio the auth token or the API key's secret)")
        if self.url or self.kind == "webhook":
            parts = urlsplit(self.url)
            if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
                raise ValueError("sms.url: must begin with https://; http:// will do on this machine alone (127.0.0.1, ::1, localhost)")
            if not parts.hostname or parts.username is not None or parts.password is not None or parts.fragment:
                raise ValueError("sms.url: must name a host, without user, password or fragment")
        if self.kind == "webhook":
            if self.account or self.key or self.sender:
                raise ValueError("sms.account, sms.key, sms.sender: are twilio's; leave them out beside a webhook")
            try:
                signing = base64.b64decode(secret.removeprefix("whsec_"), validate=True) if secret.startswith("whsec_") else b""
            except ValueError:
                signing = b""
            if not 24 <= len(signing) <= 64:
                raise ValueError("sms_secret: of a webhook must be whsec_ and then 24 to 64 random bytes in base64 (standardwebhooks.com)")
            return
        if not re.fullmatch("AC[0-9a-f]{32}", self.account) or (self.key and not re.fullmatch("SK[0-9a-f]{32}", self.key)):
            raise ValueError(
                "sms.account: must be AC and 32 hexadecimal digits, as twilio's console shows it, and sms.key, where one is used, SK and 32"
            )
        if not re.fullmatch(r"MG[0-9a-f]{32}|\+[1-9][0-9]{2,14}|[A-Za-z0-9 ]{1,11}", self.sender):
            raise ValueError("sms.sender: must be a number as +491701234567, a name of at most 11 letters, or a messaging service (MG...)")


class Settings(BaseSettings):
    """Every setting. A field's description is its documentation; docs/settings.md is checked against it."""

    model_config = SettingsConfigDict(env_prefix="ESPLANADE_", extra="forbid", frozen=True)

    data_dir: Path = Field(default_factory=default_data_dir, description="Directory of the embedded servers' data, the lock and the runs' reports.")
    postgres_url: str | None = Field(None, description="PostgreSQL to use instead of the embedded one, e.g. postgresql://user@host/db.")
    redis_url: str | None = Field(None, description="Redis or Valkey to use instead of the embedded one, e.g. redis://host:6379/0.")
    ray_address: str | None = Field(None, description="Ray cluster to join instead of starting a local node, e.g. host:6379.")
    host: str = Field("127.0.0.1", description="Address on which the gateway and the API listen.")
    gateway_port: Annotated[int, Field(ge=0, le=65535)] = Field(0, description="Port of the WebSocket gateway; 0 takes a free one.")
    gateways: Annotated[int, Field(ge=1, le=16)] = Field(
        1, description="Gateway processes, all on the one port: the system spreads connections over them. On macOS it does not, and one is enough."
    )
    api_port: Annotated[int, Field(ge=0, le=65535)] = Field(0, description="Port of the HTTP API and the console; 0 takes a free one.")
    shards: Annotated[int, Field(ge=1, le=64)] = Field(2, description="Shard processes that host the actors.")
    spares: Annotated[int, Field(ge=0, le=8)] = Field(1, description="Shard processes that stand by, warm, to take over from one that dies or hangs.")
    lease_ttl_s: Annotated[float, Field(ge=2, le=300)] = Field(15.0, description="How long a partition's lease lasts unless renewed.")
    shard_memory_mib: Annotated[int, Field(ge=256)] | None = Field(
        None,
        description="Memory of a shard's process in MiB, above which entities that nobody asks for leave it early; by default there is no limit.",
    )
    tick_deadline_s: Annotated[float, Field(ge=0.2, le=600)] = Field(
        30.0, description="How long a driven tick waits for a late source before it closes without it (which voids the run's hash)."
    )
    max_speed_m_s: Annotated[float, Field(ge=0, le=100)] = Field(
        8.0,
        description="What nobody outruns in a venue: a phone that says so gets no offers for 30 s; 0 believes every phone. Feeds that drive the ticks are believed.",
    )
    outbox_keep_s: Annotated[float, Field(ge=60, le=30 * 86_400)] = Field(
        86_400.0, description="How long publications are kept for clients that reconnect; one that was away for longer is told that it missed some."
    )
    master_key: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = Field(
        None,
        repr=False,
        description="Key that wraps the keys of personal data, 64 hexadecimal digits; by default one in the database, which backups then carry.",
    )
    local_sign_in: bool | None = Field(
        None,
        description="Whether the console on this machine may sign in without an account; by default only when everything is embedded and on loopback.",
    )
    public_venues: bool | None = Field(
        None,
        description="Whether every tenant's venues may be listed and read without a token; by default only when everything is embedded and on loopback.",
    )
    webhooks_to_private_addresses: bool = Field(
        False, description="Whether webhooks may go to private addresses, this machine's among them, and without TLS: for trying things out."
    )
    allowed_origins: tuple[str, ...] = Field((), description="Origins of pages that may open a WebSocket, beside the API's own address.")
    issuers: tuple[IssuerSettings, ...] = Field((), description="OpenID Connect issuers whose tokens are believed, beside our own.")
    code_provider: Literal["off", "simulator"] | None = Field(
        None,
        description="What becomes of sign-in codes over a channel that has no provider (smtp, sms): off refuses them, simulator writes them to messages.jsonl "
        "in the data directory; by default simulator only when everything is embedded and on loopback.",
    )
    smtp: SmtpSettings | None = Field(None, description="Mail server that takes sign-in codes to people.")
    smtp_password: Annotated[str, Field(max_length=4_096)] | None = Field(None, repr=False, description="Password of smtp.username.")
    sms: SmsSettings | None = Field(None, description="Provider that takes sign-in codes to phones.")
    sms_secret: Annotated[str, Field(max_length=4_096)] | None = Field(
        None, repr=False, description="What we prove to the SMS provider who we are with."
    )
    guests: bool = Field(True, description="Whether people may come in without signing in.")
    plans: dict[str, PlanSettings] = Field({}, description="Plans: what all of a tenant's clients may do together.")
    tenant_plans: dict[str, str] = Field({}, description="Tenant by tenant, the name of its plan.")
    default_plan: str | None = Field(None, description="Plan of tenants that have none of their own; without one they are not limited as a whole.")
    tenants: dict[str, TenantSettings] = Field(
        {}, description="Tenant by tenant, whether its people are asked for consent and after how many days of silence they are erased."
    )
    per_address_min: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        1_000, description="Attempts a minute, from one address, of people who are not known yet; who presents a good token is not counted."
    )
    tls_certificate: Path | None = Field(
        None, description="Certificate chain (PEM) of gateway and API; a file that changes is taken without a restart."
    )
    tls_key: Path | None = Field(None, description="Private key (PEM) of the certificate.")
    max_connections: Annotated[int, Field(ge=1, le=20_000)] = Field(9_500, description="WebSocket connections a gateway admits.")
    console_dir: Path | None = Field(None, description="Built console to serve; by default console/dist beside the source.")
    blob_dir: Path | None = Field(
        None, description="Folder of map tiles and assets, seen by every machine of the service; by default blobs in the data directory."
    )
    blob_url: str | None = Field(
        None,
        description="S3-compatible storage of map tiles and assets instead of a folder: s3://bucket/prefix?endpoint=https://...&region=...&cache=FOLDER.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log event that is written (docs/operations.md#logs)."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Environment over the file; `load_settings` passes the file's values as init values and the command line's over both.
        return env_settings, init_settings

    @model_validator(mode="after")
    def _belongs_together(self) -> Settings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key: give both or neither")
        if self.blob_url is not None and (self.blob_dir is not None or not self.blob_url.startswith("s3://")):
            raise ValueError("blob_url: must begin with s3://, and blob_dir be left out beside it")
        unknown = sorted({*self.tenant_plans.values(), *([self.default_plan] if self.default_plan is not None else [])} - set(self.plans))
        if unknown:
            raise ValueError(f"plans {', '.join(unknown)}: not among `plans`; describe them there")
        for tenant in self.tenants:
            check_name(tenant, "tenant")
        if bool(self.smtp and self.smtp.username) != bool(self.smtp_password):
            raise ValueError("smtp.username and smtp_password: give both or neither")
        if self.sms is not None:
            self.sms.check(self.sms_secret)
        elif self.sms_secret:
            raise ValueError("sms_secret: is of the provider in `sms`, which is not there")
        return self

    @property
    def master_key_bytes(self) -> bytes | None:
        return None if self.master_key is None else bytes.fromhex(self.master_key)

    @property
    def blobs(self) -> str:
        """Where map tiles and assets are, for `open_blobs`: a URL, or a folder."""
        return self.blob_url or str(self.blob_dir or self.data_dir.expanduser().absolute() / "blobs")

    @property
    def simulated_codes(self) -> Path | None:
        """File of sign-in codes over channels without a provider; None where these are off."""
        simulated = self.at_home if self.code_provider is None else self.code_provider == "simulator"
        return self.data_dir.expanduser().resolve() / "messages.jsonl" if simulated and None in (self.smtp, self.sms) else None

    @property
    def smtp_config(self) -> dict[str, Any] | None:
        """For `gateway.code_providers.Smtp`."""
        smtp = self.smtp
        if smtp is None:
            return None
        port = smtp.port or (465 if smtp.security == "tls" else 587)  # RFC 8314, 3.3; RFC 6409
        return {**smtp.model_dump(), "port": port, "password": self.smtp_password or "", "certificates": _absolute(smtp.certificates)}

    @property
    def sms_config(self) -> dict[str, Any] | None:
        """For `gateway.code_providers.Sms`."""
        sms = self.sms
        return None if sms is None else {**sms.model_dump(), "secret": self.sms_secret or "", "certificates": _absolute(sms.certificates)}

    @property
    def embedded(self) -> bool:
        """Whether PostgreSQL, Redis and Ray are all our own."""
        return self.postgres_url is None and self.redis_url is None and self.ray_address is None

    @property
    def at_home(self) -> bool:
        """Whether all is our own and nobody but who sits at this machine can come."""
        return self.embedded and self.host in LOOPBACK

    @property
    def answers(self) -> Answers:
        """What tenants have answered, and what is in force for those that have not."""
        from gateway.answers import Answer, Answers

        return Answers({name: Answer(held.consent, held.retention_days) for name, held in self.tenants.items()}, at_home=self.at_home)


def load_settings(*, config: Path | None = None, **overrides: Any) -> Settings:
    """Settings from file, environment and overrides (strongest). Raises InvalidInput naming each bad setting, NotFound where a named file is absent."""
    named = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    path = named or Path("esplanade.toml")
    values: dict[str, Any] = {}
    if named is not None and not path.is_file():
        raise NotFound(f"settings file {path}: not there; name an existing TOML file or unset {CONFIG_VARIABLE}")
    if path.is_file():
        try:
            values = tomllib.loads(path.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidInput(f"settings file {path}: not TOML ({error}); mend that line") from error
    known = set(Settings.model_fields)
    unknown = sorted(set(values) - known)
    unknown_env = sorted(
        key for key in os.environ if key.startswith("ESPLANADE_") and key[10:].lower() not in known and key not in (CONFIG_VARIABLE, *OTHER_VARIABLES)
    )
    if unknown or unknown_env:
        raise InvalidInput(f"unknown settings {', '.join(unknown + unknown_env)}; the known ones are {', '.join(sorted(known))}")
    try:
        settings = Settings(**values)
        given = {key: value for key, value in overrides.items() if value is not None}
        return Settings.model_validate(settings.model_dump() | given) if given else settings
    except ValidationError as error:
        first = "; ".join(
            f"{e['loc'][0]}: must have 64 hexadecimal digits"
            if e["loc"][:1] == ("master_key",)  # it is not to be shown
            else f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}"
            if e["loc"] and e["loc"][0] in ("smtp", "smtp_password", "sms", "sms_secret")  # nor a secret that is in the wrong place
            else f"{'.'.join(map(str, e['loc']))} = {e['input']!r}: {e['msg']}"
            if e["loc"]
            else e["msg"].removeprefix("Value error, ")  # of several together: the input is all of them, secrets too
            for e in error.errors()
        )
        raise InvalidInput(f"settings: {first}; see docs/settings.md") from None


OTHER_VARIABLES = ("ESPLANADE_DATA", "ESPLANADE_CHROMIUM", "ESPLANADE_WORLD_SEEDS", "ESPLANADE_SCENE_SEEDS", "ESPLANADE_JUPEDSIM_PYTHON")
"""Variables that only tests read: the folder of real data, the browser, the seeds of the world test."""


def _absolute(file: Path | None) -> str | None:
    return None if file is None else str(file.expanduser().resolve())


def socket_dir() -> Path:
    """A short directory for Unix sockets, whose paths may have some 107 bytes."""
    return Path(tempfile.gettempdir() if len(tempfile.gettempdir()) < 40 else "/tmp")
