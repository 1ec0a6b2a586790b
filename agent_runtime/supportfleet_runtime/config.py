"""Settings: the environment, read once, checked as a whole before anything starts.

``load`` is a pure function of the environment and the files it names. It finds every problem, not the first, and says
of each which variable is wrong, why, and what to set. The values of secrets appear in no message; each may be given
by a file instead (``DATABASE_URL_FILE``), as Kubernetes and Docker mount them. An empty variable counts as unset.

``docs/runtime.md`` holds the table that ``reference()`` renders; a test keeps them in step.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from supportfleet_runtime.access import (
    ApiKey,
    TokenRules,
    check_jwks,
    first_key,
    missing_token_settings,
    parse_algorithms,
    parse_api_keys,
    parse_origins,
)
from supportfleet_runtime.agent.settings import AgentSettings, read_agent_settings
from supportfleet_runtime.callbacks.addresses import parse_allow_list
from supportfleet_runtime.callbacks.settings import CallbackSettings, is_mail_address, parse_mail_server, parse_secrets
from supportfleet_runtime.config_sources import SecretFiles, Variables, expectation, is_secret
from supportfleet_runtime.errors import ConfigurationError, Problem
from supportfleet_runtime.observability.masking import known_secrets
from supportfleet_runtime.observability.otlp_headers import otlp_headers
from supportfleet_runtime.queue.settings import QueueType, queue_problems
from supportfleet_runtime.storage.url import DatabaseKind, parse_database_url

DEFAULT_DATA_DIR: Final = Path("/var/lib/supportfleet")
DEFAULT_CONFIG_DIR: Final = Path("/etc/supportfleet")
DATABASE_FILE: Final = "supportfleet.db"

LogLevel = Literal["debug", "info", "warning", "error"]
OtlpCompression = Literal["none", "gzip"]
OtlpProtocol = Literal["http/protobuf"]
LlmProvider = Literal["auto", "anthropic", "scripted"]
Lowercase = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)


def setting(default: Any, expects: str, meaning: str, **constraints: Any) -> Any:
    """A field, with what a valid value looks like (the remedy when one isn't) and what it does (the reference)."""
    return Field(default, description=meaning, json_schema_extra={"expects": expects}, **constraints)


class Settings(BaseSettings):
    """What the environment says. A field's variable is its name in capitals."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings'
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what is given alone: ``load`` says from which sources, and gathers what is wrong with them."""
        return (init_settings,)

    api_host: str = setting("0.0.0.0", "an address to listen on", "Interface of the HTTP server.")  # noqa: S104 - pods are reached from outside
    api_port: int = setting(
        8080, "a port from 0 to 65535", "Port of the HTTP server (0: any free one).", ge=0, le=65535
    )
    api_workers: int = setting(
        1,
        "a whole number from 1 to 64",
        "Processes asked for. A pod has one, and its log says so where this is more: have more pods instead.",
        ge=1,
        le=64,
    )
    api_timeout_seconds: float = setting(
        30.0,
        "seconds from 0 to 300",
        "How long a customer's request waits for the reply; after that it gets 202 and a task to ask for.",
        ge=0,
        le=300,
    )
    api_keys: SecretStr | None = setting(
        None,
        "keys of at least 16 characters or their hashes ([NAME:]sha256:HEX), separated by commas or line breaks",
        "Callers must send one of these as `Authorization: Bearer KEY` or `X-API-Key: KEY`. Unset: open.",
    )
    jwt_jwks: str | None = setting(
        None,
        "an https:// address or a file",
        "JWK set whose keys sign customers' tokens (`Authorization: Bearer TOKEN`). Unset: no tokens.",
    )
    jwt_issuer: str | None = setting(None, "what tokens say in iss", "Who issues the tokens.")
    jwt_audience: str | None = setting(None, "what tokens say in aud", "Whom they are meant for.")
    jwt_algorithms: str = setting(
        "RS256,ES256,EdDSA",
        "some of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 and EdDSA, separated by commas",
        "How tokens may be signed.",
    )
    jwt_customer_claim: str = setting(
        "sub", "a claim's name", "Claim that names the customer.", min_length=1, max_length=200
    )
    jwt_leeway: float = setting(
        30.0, "seconds from 0 to 300", "How far clocks may be apart when a token expires.", ge=0, le=300
    )
    cors_origins: str = setting(
        "",
        "origins such as https://shop.example, separated by commas",
        "Sites whose pages may call the API from a browser. Unset: none.",
    )
    rate_limit: int = setting(
        1000,
        "a whole number from 0 to 1000000",
        "Requests a minute that each customer may make (0: any number).",
        ge=0,
        le=1_000_000,
    )
    redis_url: SecretStr | None = setting(
        None,
        "redis://, rediss:// or unix:// and where",
        "Redis that all pods share. Unset: each pod counts its own requests, and remembers conversations by itself.",
    )
    redis_ttl: float = setting(
        3600.0,
        "seconds from 1 to 86400",
        "How long a conversation is remembered outside the database, in Redis or else in the process.",
        ge=1,
        le=86_400,
    )
    anthropic_api_key: SecretStr | None = setting(
        None, "an Anthropic API key", "Key for Claude; without it the scripted provider answers."
    )
    anthropic_base_url: str = setting(
        "https://api.anthropic.com",
        "an http:// or https:// address",
        "Where the Messages API is.",
        pattern=r"^https?://[^\s/]+",
    )
    llm_provider: Annotated[LlmProvider, Lowercase] = setting(
        "auto", "auto, anthropic or scripted", "Who answers what rules can't; `auto`: Claude where there is a key."
    )
    claude_model: str = setting(
        "claude-haiku-5-5", "a model's name", "Model that answers.", min_length=1, max_length=200
    )
    fallback_model: str | None = setting(
        None,
        "a model's name",
        "Model that answers where CLAUDE_MODEL fails. Unset: none.",
        min_length=1,
        max_length=200,
    )
    fallback_enabled: bool = setting(
        True,  # noqa: FBT003 - a default
        "true or false",
        "Whether FALLBACK_MODEL and earlier answers stand in for CLAUDE_MODEL; else the generic reply does.",
    )
    claude_timeout: float = setting(
        20.0, "seconds above 0, up to 300", "Time the model has for a reply, retries included.", gt=0, le=300
    )
    claude_retries: int = setting(
        3, "a whole number from 0 to 10", "Tries after the first, within CLAUDE_TIMEOUT.", ge=0, le=10
    )
    claude_max_tokens: int = setting(
        1024, "a whole number from 1 to 64000", "Longest reply in tokens.", ge=1, le=64_000
    )
    db_type: Annotated[DatabaseKind | None, Lowercase] = setting(
        None, "sqlite or postgresql", "Kind of the database, checked against DATABASE_URL. Unset: what that says."
    )
    database_url: SecretStr | None = setting(
        None,
        "postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or sqlite:///FILE",
        "Where conversations and the queue live. Unset: SQLite in /var/lib/supportfleet, ./data or a temporary folder.",
    )
    db_pool: int = setting(20, "a whole number from 2 to 200", "Most connections to the database.", ge=2, le=200)
    db_timeout: float = setting(
        5.0, "seconds above 0, up to 60", "Longest wait for a connection or a statement.", gt=0, le=60
    )
    retention_days: int | None = setting(
        None,
        "a whole number from 1 to 36500",
        "Days after its last message that a conversation is removed. Unset: never.",
        ge=1,
        le=36_500,
    )
    queue_type: Annotated[QueueType, Lowercase] = setting(
        QueueType.SQL,
        "sql, redis, rabbitmq, kafka or sqs",
        "What carries messages to workers; they are stored in the database whatever it is.",
    )
    queue_url: SecretStr | None = setting(
        None,
        "redis://…, amqp://…, kafka://HOST:PORT,… or sqs://REGION",
        "Where that is. Unset with sql: the database.",
    )
    queue_name: str | None = setting(
        None,
        "up to 200 characters",
        "Queue that messages go to and workers take from. Unset: POD_NAMESPACE/AGENT_NAME and, if set, AGENT_REVISION.",
        max_length=200,
    )
    queue_batch: int = setting(100, "a whole number from 1 to 1000", "Most messages worked at once.", ge=1, le=1000)
    queue_visibility: float = setting(
        300.0,
        "seconds from 5 to 3600",
        "Longest time one attempt at a message may take. (A crashed worker's messages come back sooner: see Queue.)",
        ge=5,
        le=3600,
    )
    queue_max_tries: int = setting(
        5, "a whole number from 1 to 100", "Attempts before a message is dead-lettered.", ge=1, le=100
    )
    long_tasks: int = setting(
        4,
        "a whole number from 1 to 100",
        "Most long tasks (`longIntents`) worked at once, beside the messages.",
        ge=1,
        le=100,
    )
    long_task_seconds: float = setting(
        900.0, "seconds from 5 to 3600", "Longest time one attempt at a long task may take.", ge=5, le=3600
    )
    event_streams: int = setting(
        1000, "a whole number from 1 to 100000", "Most event streams of a pod at once.", ge=1, le=100_000
    )
    event_streams_per_customer: int = setting(
        5, "a whole number from 1 to 1000", "Most event streams of a customer in a pod at once.", ge=1, le=1000
    )
    webhook_secret: SecretStr | None = setting(
        None,
        "one or more keys, whsec_ and the base64 of 24 to 64 bytes, separated by commas or white space",
        "Keys that webhooks are signed with. Unset: messages can't ask for webhooks.",
    )
    webhook_allowed: str = setting(
        "",
        "hosts, suffixes (.svc) and networks (10.0.0.0/8), separated by commas",
        "What webhooks may call though it is not public; hosts on the list also by http://.",
    )
    smtp_url: SecretStr | None = setting(
        None,
        "smtp://[USER:PASSWORD@]HOST[:PORT][?starttls=required|optional|never] or smtps://…",
        "Mail server. Unset: messages can't ask for e-mail.",
    )
    email_from: str | None = setting(None, "an e-mail address", "Sender of e-mail.")
    callback_max_tries: int = setting(
        8, "a whole number from 1 to 20", "Attempts before a callback has failed.", ge=1, le=20
    )
    model_dir: Path = setting(Path("/models"), "a folder", "Where `sync-model` puts models.")
    model_digest: str | None = setting(
        None,
        "sha256: and 64 hexadecimal digits",
        "Model that must be loaded before the pod is ready. Unset: MODEL_DIR/current, else built-in keywords.",
        pattern=r"^sha256:[0-9a-f]{64}$",
    )
    model_file: Path | None = setting(
        None,
        "a JSON file with uri, version and digest",
        "Model that is used now and whenever the file changes, without a restart; fetched to MODEL_DIR as needed.",
    )
    tools_url: str | None = setting(
        None,
        "an http:// or https:// address",
        "Where the tool service is. Unset: tools work in this process.",
        pattern=r"^https?://[^\s/?#]+/?$",
    )
    tools_api_key: SecretStr | None = setting(
        None,
        "one or more keys of at least 16 characters, separated by commas or line breaks",
        "Key of the tool service: `tools` takes any of these, agents send the first.",
    )
    tools_timeout: float = setting(
        5.0,
        "seconds from 0.5 to 15",
        "Longest time for a tool's call, finding out how it ended included.",
        ge=0.5,
        le=15,
    )
    tools_port: int = setting(
        8081, "a port from 0 to 65535", "Port of the tool service (0: any free one).", ge=0, le=65535
    )
    config_dir: Path = setting(DEFAULT_CONFIG_DIR, "a folder", "Where a relative CONFIG_FILE is looked up.")
    config_file: Path | None = setting(
        None, "a JSON file", "The agent's configuration. Unset: agent_config.json in CONFIG_DIR, where there is one."
    )
    agent_name: str = setting("default", "up to 63 characters", "The SupportAgent's name.", max_length=63)
    agent_revision: str | None = setting(
        None,
        "up to 63 letters, digits, '.', '_' and '-'",
        "The SupportAgent's revision: each has a queue of its own.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
    )
    pod_namespace: str = setting("default", "up to 63 characters", "The SupportAgent's namespace.", max_length=63)
    pod_name: str = setting("local", "up to 253 characters", "This pod, in logs.", max_length=253)
    alert_rules: Path | None = setting(
        None, "a Prometheus rule file or a PrometheusRule", "Alert rules that `checklist` looks at."
    )
    runbooks: Path | None = setting(None, "a folder of Markdown files", "Runbooks that `checklist` looks for.")
    oncall_attestation: Path | None = setting(
        None,
        "a JSON or YAML file with team, date and by",
        "Where it says that the team on call was trained, for `checklist`.",
    )
    enable_tracing: bool = setting(
        False,  # noqa: FBT003 - a default
        "true or false",
        "Whether traces are sent to where the OTEL_ variables say: see telemetry.md.",
    )
    otel_exporter_otlp_endpoint: str = setting(
        "http://localhost:4318",
        "an http:// or https:// address",
        "OpenTelemetry collector; `/v1/traces` is added.",
        pattern=r"^https?://[^\s/]+",
    )
    otel_exporter_otlp_traces_endpoint: str | None = setting(
        None,
        "an http:// or https:// address",
        "Where traces go, exactly. Unset: OTEL_EXPORTER_OTLP_ENDPOINT.",
        pattern=r"^https?://[^\s/]+",
    )
    otel_exporter_otlp_headers: SecretStr | None = setting(
        None, "NAME=VALUE pairs, separated by commas", "Headers of requests to the collector, such as its key."
    )
    otel_exporter_otlp_traces_headers: SecretStr | None = setting(
        None, "NAME=VALUE pairs, separated by commas", "The same for traces alone, instead."
    )
    otel_exporter_otlp_timeout: int = setting(
        10_000, "milliseconds from 1 to 60000", "Longest time a request to the collector may take.", ge=1, le=60_000
    )
    otel_exporter_otlp_compression: Annotated[OtlpCompression, Lowercase] = setting(
        "none", "none or gzip", "How requests to the collector are compressed."
    )
    otel_exporter_otlp_certificate: Path | None = setting(
        None, "a PEM file", "Authority of the collector's certificate. Unset: the system's."
    )
    otel_exporter_otlp_protocol: OtlpProtocol = setting(
        "http/protobuf", "http/protobuf", "How the collector is spoken to: there is one way."
    )
    datadog_api_key: SecretStr | None = setting(
        None, "a Datadog API key", "Key for Datadog, which is then sent traces and metrics: see telemetry.md."
    )
    dd_site: str = setting(
        "datadoghq.com",
        "a Datadog site, such as datadoghq.eu or us3.datadoghq.com",
        "Datadog's site that the key is for.",
        pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$",
    )
    dd_otlp_endpoint: str | None = setting(
        None,
        "an http:// or https:// address",
        "Datadog's intake for OTLP. Unset: `https://otlp.DD_SITE`.",
        pattern=r"^https?://[^\s/]+",
    )
    dd_agent_host: str | None = setting(
        None, "a host's name or address", "Datadog's agent: metrics go there by DogStatsD.", max_length=253
    )
    dd_dogstatsd_port: int = setting(
        8125, "a port from 1 to 65535", "UDP port of DD_AGENT_HOST for DogStatsD.", ge=1, le=65535
    )
    log_level: Annotated[LogLevel, Lowercase] = setting(
        "info", f"{', '.join(get_args(LogLevel))}", "Least severe event that is logged."
    )

    @field_validator("api_keys", "tools_api_key")
    @classmethod
    def _keys_are_good(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_api_keys(value.get_secret_value())
        return value

    @field_validator("jwt_jwks")
    @classmethod
    def _jwks_is_safe(cls, value: str | None) -> str | None:
        if value is not None:
            check_jwks(value)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_origins(cls, value: str) -> str:
        parse_origins(value)
        return value

    @field_validator("jwt_algorithms")
    @classmethod
    def _algorithms_are_known(cls, value: str) -> str:
        parse_algorithms(value)
        return value

    @field_validator("otel_exporter_otlp_headers", "otel_exporter_otlp_traces_headers")
    @classmethod
    def _headers_are_pairs(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            otlp_headers(value.get_secret_value())
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _secrets_are_good(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_secrets(value.get_secret_value())
        return value

    @field_validator("webhook_allowed")
    @classmethod
    def _allow_list_is_understood(cls, value: str) -> str:
        parse_allow_list(value)
        return value

    @field_validator("smtp_url")
    @classmethod
    def _mail_server_is_understood(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_mail_server(value.get_secret_value())
        return value

    @field_validator("email_from")
    @classmethod
    def _sender_is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not is_mail_address(value):
            raise ValueError("it is no plain e-mail address")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_is_known(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.match(r"(rediss?|unix)://[^\s]+$", value.get_secret_value()):
            raise ValueError("it is no Redis address")
        return value

    @field_validator("database_url")
    @classmethod
    def _database_is_known(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_database_url(value.get_secret_value())
        return value

    @property
    def scope(self) -> str:
        """The agent whose conversations these are: agents may share a database."""
        return f"{self.pod_namespace}/{self.agent_name}"

    @property
    def queue(self) -> str:
        """The queue's name."""
        revision = f"/{self.agent_revision}" if self.agent_revision else ""
        return self.queue_name or self.scope + revision

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        """The API keys that callers may use."""
        return parse_api_keys(self.api_keys.get_secret_value()) if self.api_keys else ()

    @property
    def token_rules(self) -> TokenRules | None:
        """What customers' tokens must say, where they are accepted."""
        if not (self.jwt_jwks and self.jwt_issuer and self.jwt_audience):
            return None
        return TokenRules(
            jwks=self.jwt_jwks,
            issuer=self.jwt_issuer,
            audience=self.jwt_audience,
            algorithms=parse_algorithms(self.jwt_algorithms),
            customer_claim=self.jwt_customer_claim,
            leeway=self.jwt_leeway,
        )

    @property
    def callbacks(self) -> CallbackSettings:
        """How can be told that a task has ended."""
        smtp = self.smtp_url
        return CallbackSettings(
            secrets=parse_secrets(self.webhook_secret.get_secret_value()) if self.webhook_secret else (),
            allowed=parse_allow_list(self.webhook_allowed),
            mail_server=parse_mail_server(smtp.get_secret_value()) if smtp else None,
            sender=self.email_from,
            max_tries=self.callback_max_tries,
        )

    @property
    def uses_claude(self) -> bool:
        """Whether Claude answers what rules can't."""
        return self.llm_provider == "anthropic" or (self.llm_provider == "auto" and self.anthropic_api_key is not None)


@dataclass(frozen=True)
class Configuration:
    """Everything that was configured: the process's settings and the agent's."""

    settings: Settings
    agent: AgentSettings
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    """All variables: a model's store has its own (AWS_…)."""


def secrets(configuration: Configuration) -> set[str]:
    """The values that must not be told, whatever tells them."""
    settings = configuration.settings
    given = [value for name in _secrets() if (value := getattr(settings, name)) is not None]
    return known_secrets(configuration.environ, [value.get_secret_value() for value in given])


def load(environ: Mapping[str, str]) -> Configuration:
    """Read and check everything, or raise ``ConfigurationError`` with all that is wrong."""
    problems: list[Problem] = []
    values = SecretFiles(Settings, environ, problems)() | Variables(Settings, environ)()
    settings = _validate(values, problems)
    file, folder = values.get("config_file"), values.get("config_dir", DEFAULT_CONFIG_DIR)
    agent, found = read_agent_settings(Path(file) if file else None, Path(folder))
    problems += found
    if settings is not None:
        problems += _contradictions(settings)
    if settings is None or problems:
        raise ConfigurationError(problems)
    return Configuration(settings, agent, dict(environ))


def default_database_path(data: Path = DEFAULT_DATA_DIR, local: Path = Path("data")) -> tuple[Path, bool]:
    """The SQLite file of an unconfigured process, and whether its folder lasts longer than the process."""
    if data.is_dir() and _writable(data):
        return data / DATABASE_FILE, True
    with contextlib.suppress(OSError):  # where it can't be made it can't be written either
        local.mkdir(exist_ok=True)
    if _writable(local):
        return local / DATABASE_FILE, True
    return Path(tempfile.mkdtemp(prefix="supportfleet-")) / DATABASE_FILE, False


def reference() -> str:
    """The settings as a Markdown table."""
    rows = ["| Variable | Default | Expects | What it does |", "|---|---|---|---|"]
    for name, info in Settings.model_fields.items():
        default = "" if info.default is None else f"`{_plain(info.default)}`"
        variable = f"`{name.upper()}`" + (" (or `_FILE`)" if name in _secrets() else "")
        rows.append(f"| {variable} | {default} | {_expects(name)} | {info.description} |")
    return "\n".join(rows) + "\n"


def _validate(values: dict[str, Any], problems: list[Problem]) -> Settings | None:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            name = str(detail["loc"][0])
            shown = "" if name in _secrets() else f" (it is {str(detail['input'])[:80]!r})"
            message = detail["msg"].removeprefix("Value error, ")
            problems.append(Problem(name.upper(), f"{message}{shown}", f"set it to {_expects(name)}"))
        return None


def _contradictions(settings: Settings) -> Iterator[Problem]:
    """What is right in each setting, yet not in all of them together."""
    if settings.llm_provider == "anthropic" and settings.anthropic_api_key is None:
        yield Problem(
            "ANTHROPIC_API_KEY", "LLM_PROVIDER=anthropic needs it and it is not set", "set it, or LLM_PROVIDER=scripted"
        )
    url = settings.database_url
    if settings.db_type is DatabaseKind.POSTGRESQL and url is None:
        yield Problem("DATABASE_URL", "DB_TYPE=postgresql needs it and it is not set", "set it, or DB_TYPE=sqlite")
    elif settings.db_type and url and parse_database_url(url.get_secret_value()).kind != settings.db_type:
        yield Problem(
            "DB_TYPE", f"DATABASE_URL is no {settings.db_type} address", "unset it, or correct one of the two"
        )
    for name in missing_token_settings(settings.jwt_jwks, settings.jwt_issuer, settings.jwt_audience):
        yield Problem(name, "tokens need it and it is not set", "set it, or unset all of JWT_JWKS, _ISSUER, _AUDIENCE")
    if settings.smtp_url is not None and settings.email_from is None:
        yield Problem("EMAIL_FROM", "SMTP_URL needs it and it is not set", "set it, or unset SMTP_URL")
    if settings.tools_url is not None and settings.tools_api_key is None:
        yield Problem("TOOLS_API_KEY", "TOOLS_URL needs it and it is not set", "set it, or unset TOOLS_URL")
    if settings.tools_url and settings.tools_api_key and not first_key(settings.tools_api_key.get_secret_value()):
        yield Problem("TOOLS_API_KEY", "TOOLS_URL needs the key itself, and the first one is a hash", "put it first")
    yield from queue_problems(
        settings.queue_type, settings.queue_url.get_secret_value() if settings.queue_url else None
    )
    if settings.model_file is not None and settings.model_digest is not None:
        yield Problem("MODEL_FILE", "MODEL_DIGEST is set as well", "set MODEL_FILE, or pin one model by MODEL_DIGEST")


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _secrets() -> list[str]:
    return [name for name, info in Settings.model_fields.items() if is_secret(info)]


def _expects(name: str) -> str:
    return expectation(Settings.model_fields[name])


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
