from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_runtime import config
from supportfleet_runtime.access import hash_key
from supportfleet_runtime.agent.settings import AgentSettings, parse_agent_settings
from supportfleet_runtime.errors import ConfigurationError

DOCUMENT = Path(__file__).parents[2] / "docs" / "runtime.md"


def problems(**environ: str) -> dict[str, str]:
    """What is said about an environment, by variable."""
    with pytest.raises(ConfigurationError) as raised:
        config.load({"CONFIG_DIR": "/nonexistent", **environ})
    return {problem.name: str(problem) for problem in raised.value.problems}


class TestEnvironment:
    def test_nothing_set_is_a_valid_configuration(self) -> None:
        """With an empty environment the agent runs: scripted, on a file, with the sample order book."""
        loaded = config.load({})
        assert not loaded.settings.uses_claude
        assert loaded.settings.database_url is None
        assert loaded.agent.order_book.of_customer("cust-1001")

    def test_empty_variables_count_as_unset(self) -> None:
        """A variable that is set to nothing, as templates leave them, keeps the default."""
        settings = config.load({"API_PORT": "", "ANTHROPIC_API_KEY": " ", "MODEL_DIGEST": ""}).settings
        assert (settings.api_port, settings.anthropic_api_key, settings.model_digest) == (8080, None, None)

    def test_all_problems_are_told_at_once(self, tmp_path: Path) -> None:
        """Wrong variables, unreadable secrets and a wrong file are reported together."""
        (tmp_path / "agent_config.json").write_text('{"compny": "Acme"}')
        said = problems(
            API_PORT="80800",
            CLAUDE_TIMEOUT="soon",
            DATABASE_URL="mysql://user:hunter2@db/x",
            ANTHROPIC_API_KEY_FILE=str(tmp_path / "missing"),
            CONFIG_DIR=str(tmp_path),
        )
        assert said.keys() == {
            "API_PORT",
            "CLAUDE_TIMEOUT",
            "DATABASE_URL",
            "ANTHROPIC_API_KEY_FILE",
            "agent_config.json: compny",
        }
        assert all("→" in text for text in said.values()), "each names a remedy"

    def test_messages_never_hold_secrets(self) -> None:
        """A wrong secret is described, not repeated."""
        said = problems(DATABASE_URL="mysql://user:hunter2@db/x", API_KEYS="tooshort", API_PORT="x")
        assert "hunter2" not in str(said)
        assert "tooshort" not in str(said)
        assert "'x'" in said["API_PORT"], "what is no secret is shown"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("API_TIMEOUT_SECONDS", "-1"),
            ("API_TIMEOUT_SECONDS", "nan"),
            ("API_WORKERS", "0"),
            ("ANTHROPIC_BASE_URL", "api.anthropic.com"),
            ("CLAUDE_RETRIES", "1.5"),
            ("DATABASE_URL", "sqlite://"),
            ("DATABASE_URL", "sqlite:///:memory:"),
            ("DATABASE_URL", "postgresql://h:port/d"),
            ("DB_POOL", "1"),
            ("LLM_PROVIDER", "gpt"),
            ("LOG_LEVEL", "loud"),
            ("MODEL_DIGEST", "sha256:ABC"),
            ("QUEUE_BATCH", "0"),
            ("QUEUE_VISIBILITY", "1"),
        ],
    )
    def test_bad_values_name_their_variable(self, name: str, value: str) -> None:
        """Each kind of wrong value is refused under the variable's own name."""
        assert list(problems(**{name: value})) == [name]

    def test_case_does_not_matter_where_words_are_expected(self) -> None:
        """LOG_LEVEL=INFO and LLM_PROVIDER=Scripted are what people write."""
        settings = config.load({"LOG_LEVEL": "INFO", "LLM_PROVIDER": "Scripted"}).settings
        assert (settings.log_level, settings.llm_provider) == ("info", "scripted")

    def test_anthropic_needs_a_key(self) -> None:
        """Asking for Claude without a key is a contradiction, not a scripted agent."""
        assert list(problems(LLM_PROVIDER="anthropic")) == ["ANTHROPIC_API_KEY"]

    def test_auto_uses_claude_where_there_is_a_key(self) -> None:
        """A key alone turns Claude on; 'scripted' turns it off again."""
        assert config.load({"ANTHROPIC_API_KEY": "k"}).settings.uses_claude
        assert not config.load({"ANTHROPIC_API_KEY": "k", "LLM_PROVIDER": "scripted"}).settings.uses_claude

    def test_agents_of_one_database_are_kept_apart(self) -> None:
        """The scope and the queue's name come from namespace and name; QUEUE_NAME overrides the queue's."""
        environ = {"POD_NAMESPACE": "shop", "AGENT_NAME": "helper"}
        assert config.load(environ).settings.queue == "shop/helper"
        settings = config.load({**environ, "QUEUE_NAME": "canary"}).settings
        assert (settings.queue, settings.scope) == ("canary", "shop/helper")

    def test_revisions_have_queues_of_their_own(self) -> None:
        """What a proxy sends to a revision is worked by that revision: its name is part of the queue's."""
        environ = {"POD_NAMESPACE": "shop", "AGENT_NAME": "helper", "AGENT_REVISION": "r0123456"}
        settings = config.load(environ).settings
        assert (settings.queue, settings.scope) == ("shop/helper/r0123456", "shop/helper")
        assert list(problems(**{**environ, "AGENT_REVISION": "a/b"})) == ["AGENT_REVISION"]

    @pytest.mark.parametrize(
        ("environ", "wrong"),
        [
            ({"DB_TYPE": "postgresql"}, "DATABASE_URL"),
            ({"DB_TYPE": "PostgreSQL", "DATABASE_URL": "sqlite:///x.db"}, "DB_TYPE"),
            ({"DB_TYPE": "sqlite", "DATABASE_URL": "postgresql://h/d"}, "DB_TYPE"),
            ({"DB_TYPE": "oracle"}, "DB_TYPE"),
            ({"QUEUE_TYPE": "redis"}, "QUEUE_URL"),
            ({"QUEUE_TYPE": "kafka", "QUEUE_URL": "redis://h"}, "QUEUE_URL"),
            ({"QUEUE_TYPE": "smoke"}, "QUEUE_TYPE"),
            ({"MODEL_FILE": "/x/model.json", "MODEL_DIGEST": "sha256:" + "a" * 64}, "MODEL_FILE"),
        ],
    )
    def test_settings_that_contradict_each_other(self, environ: dict[str, str], wrong: str) -> None:
        """What is right alone and wrong together is found before anything starts."""
        assert list(problems(**environ)) == [wrong]

    def test_the_kind_of_database_may_be_said(self) -> None:
        """DB_TYPE that agrees with DATABASE_URL, or with its absence, is fine."""
        assert config.load({"DB_TYPE": "SQLite"}).settings.db_type == "sqlite"
        config.load({"DB_TYPE": "postgresql", "DATABASE_URL": "postgresql://h/d"})

    @given(st.dictionaries(st.sampled_from([name.upper() for name in config.Settings.model_fields]), st.text()))
    def test_any_environment_is_accepted_or_explained(self, environ: dict[str, str]) -> None:
        """Whatever variables hold, loading gives a configuration or a list of problems, never another error."""
        try:
            config.load({**environ, "CONFIG_DIR": "/nonexistent"})
        except ConfigurationError as error:
            assert error.problems  # noqa: PT017 - either outcome is right


class TestSecretFiles:
    def test_a_secret_can_come_from_a_file(self, tmp_path: Path) -> None:
        """DATABASE_URL_FILE is read and trimmed."""
        (tmp_path / "url").write_text("postgresql://u:p@h/d\n")
        settings = config.load({"DATABASE_URL_FILE": str(tmp_path / "url")}).settings
        assert settings.database_url
        assert settings.database_url.get_secret_value() == "postgresql://u:p@h/d"

    def test_value_and_file_together_are_refused(self, tmp_path: Path) -> None:
        """Which of the two counts is not guessed."""
        (tmp_path / "key").write_text("k")
        said = problems(ANTHROPIC_API_KEY="k", ANTHROPIC_API_KEY_FILE=str(tmp_path / "key"))
        assert list(said) == ["ANTHROPIC_API_KEY_FILE"]

    @pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe"])
    def test_an_empty_or_binary_file_is_refused(self, tmp_path: Path, content: bytes) -> None:
        """A mounted secret that holds nothing usable is a problem, not an unset variable."""
        (tmp_path / "keys").write_bytes(content)
        assert list(problems(API_KEYS_FILE=str(tmp_path / "keys"))) == ["API_KEYS_FILE"]

    def test_keys_are_separated_by_commas_or_lines(self, tmp_path: Path) -> None:
        """Several keys in one file are several keys."""
        (tmp_path / "keys").write_text("first-key-of-the-shop\nsecond-key-of-the-shop, third-key-of-the-shop\n")
        keys = config.load({"API_KEYS_FILE": str(tmp_path / "keys")}).settings.keys
        assert [key.digest for key in keys] == [
            hash_key(f"{number}-key-of-the-shop") for number in ("first", "second", "third")
        ]

    def test_keys_may_be_hashes(self) -> None:
        """A hash stands for its key, with or without a name; half a hash is told, and not taken for a key."""
        digest = "ab" * 32
        keys = config.load({"API_KEYS": f"shop:sha256:{digest},sha256:{digest},sixteen-letters-"}).settings.keys
        assert [key.name for key in keys] == ["shop", "key-2", "key-3"]
        assert keys[0].digest == keys[1].digest == bytes.fromhex(digest)
        assert list(problems(API_KEYS="sha256:abcdef")) == ["API_KEYS"]
        assert list(problems(API_KEYS=f"shop:sha256:{digest.upper()}")) == ["API_KEYS"]


class TestTokens:
    GIVEN: Mapping[str, str] = {
        "JWT_JWKS": "https://login.example/keys",
        "JWT_ISSUER": "https://login.example",
        "JWT_AUDIENCE": "support",
    }

    def test_tokens_are_off_until_configured(self) -> None:
        """Without an address of keys no token is accepted; with it, issuer and audience are known."""
        assert config.load({}).settings.token_rules is None
        rules = config.load(self.GIVEN).settings.token_rules
        assert rules is not None
        assert (rules.issuer, rules.audience, rules.customer_claim) == ("https://login.example", "support", "sub")
        assert rules.algorithms == {"RS256", "ES256", "EdDSA"}

    @pytest.mark.parametrize("missing", ["JWT_JWKS", "JWT_ISSUER", "JWT_AUDIENCE"])
    def test_half_of_it_is_refused(self, missing: str) -> None:
        """Tokens whose issuer or audience nobody checks are not accepted by accident."""
        assert list(problems(**{**self.GIVEN, missing: ""})) == [missing]

    @pytest.mark.parametrize("algorithms", ["HS256", "none", "RS256,HS512", ","])
    def test_shared_secrets_and_none_are_refused(self, algorithms: str) -> None:
        """No algorithm can be configured with which the gateway, or anyone, could sign."""
        assert list(problems(**self.GIVEN, JWT_ALGORITHMS=algorithms)) == ["JWT_ALGORITHMS"]

    @pytest.mark.parametrize("address", ["http://login.example/keys", "ftp://x/y", "https:///keys", "/no/such/file"])
    def test_keys_that_could_be_swapped_are_refused(self, address: str) -> None:
        """Keys come by https, from this machine or from a file that is there."""
        assert list(problems(**{**self.GIVEN, "JWT_JWKS": address})) == ["JWT_JWKS"]


class TestConfigFile:
    def parse(self, content: Any) -> tuple[AgentSettings, list[str]]:
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        settings, found = parse_agent_settings(text, "agent_config.json")
        return settings, [problem.name for problem in found]

    def test_it_is_read_from_the_folder(self, tmp_path: Path) -> None:
        """A relative CONFIG_FILE is looked up in CONFIG_DIR."""
        (tmp_path / "mine.json").write_text('{"company": "Acme", "rules": {"refundWindowDays": 14}}')
        agent = config.load({"CONFIG_FILE": "mine.json", "CONFIG_DIR": str(tmp_path)}).agent
        assert (agent.company, agent.rules.refund_window_days) == ("Acme", 14)

    def test_a_named_file_must_exist(self) -> None:
        """CONFIG_FILE that is set and missing is a problem; unset and missing is none."""
        assert list(problems(CONFIG_FILE="agent_config.json")) == ["CONFIG_FILE"]
        assert config.load({"CONFIG_DIR": "/nonexistent"}).agent == AgentSettings()

    def test_unknown_keys_are_named_by_path(self) -> None:
        """A misspelt key is found at any depth."""
        order = {"number": "A-1", "colour": "red"}
        _, names = self.parse({"greting": "x", "rules": {"refundWindow": 1}, "orderBook": {"orders": [order]}})
        assert {
            "agent_config.json: greting",
            "agent_config.json: rules.refundWindow",
            "agent_config.json: orderBook.orders[0].colour",
        } <= set(names)

    @pytest.mark.parametrize("content", [b"{", b"", b"\xff", b"[]", b'{"company": 3}', b'{"greeting": ""}'])
    def test_broken_files_are_described(self, content: bytes) -> None:
        """No JSON, no object, wrong types: each is a problem, and the defaults are returned."""
        settings, names = self.parse(content)
        assert names
        assert settings == AgentSettings()

    def test_an_order_book_of_its_own(self) -> None:
        """An order book replaces the sample; days are dates or offsets; a number may stand once."""
        order = {
            "number": "X-100",
            "customerId": "c",
            "status": "shipped",
            "placed": "2026-11-01",
            "items": [{"name": "a", "price": 1}],
        }
        settings, names = self.parse({"orderBook": {"orders": [order, {**order, "number": "X-101", "placed": -3}]}})
        assert not names
        assert [one.number for one in settings.order_book.of_customer("c")] == ["X-100", "X-101"]
        assert not settings.order_book.of_customer("cust-1001")
        assert self.parse({"orderBook": {"orders": [order, order]}})[1]

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        )
    )
    def test_any_json_is_accepted_or_explained(self, content: Any) -> None:
        """Whatever JSON the file holds, reading it never raises."""
        self.parse(content)


class TestDefaultDatabase:
    def test_the_data_folder_comes_first(self, tmp_path: Path) -> None:
        """A writable data folder is used, and nothing is made elsewhere."""
        path, lasting = config.default_database_path(tmp_path, tmp_path / "local")
        assert (path.parent, lasting) == (tmp_path, True)
        assert not (tmp_path / "local").exists()

    def test_else_a_local_folder(self, tmp_path: Path) -> None:
        """Without one, ./data is made."""
        path, lasting = config.default_database_path(tmp_path / "missing", tmp_path / "local")
        assert (path.parent, lasting) == (tmp_path / "local", True)

    def test_else_a_temporary_one_and_it_says_so(self, tmp_path: Path) -> None:
        """Where nothing can be written the database is temporary, and known to be."""
        (tmp_path / "file").touch()
        path, lasting = config.default_database_path(tmp_path / "missing", tmp_path / "file" / "data")
        assert path.parent.is_dir()
        assert not lasting
        path.parent.rmdir()


def test_the_customary_names_are_known() -> None:
    """What operations teams call these settings is what they are called here."""
    names = [
        "API_PORT",
        "API_WORKERS",
        "API_TIMEOUT_SECONDS",
        "RATE_LIMIT",
        "CLAUDE_MODEL",
        "ANTHROPIC_API_KEY",
        "CLAUDE_TIMEOUT",
        "CLAUDE_RETRIES",
        "QUEUE_TYPE",
        "QUEUE_URL",
        "QUEUE_BATCH",
        "QUEUE_VISIBILITY",
        "DATABASE_URL",
        "DB_TYPE",
        "DB_POOL",
        "DB_TIMEOUT",
        "REDIS_URL",
        "REDIS_TTL",
        "DATADOG_API_KEY",
        "LOG_LEVEL",
        "ENABLE_TRACING",
        "FALLBACK_MODEL",
        "FALLBACK_ENABLED",
        "CONFIG_FILE",
    ]
    assert {*names} <= {name.upper() for name in config.Settings.model_fields}


def test_the_reference_is_in_step_with_the_settings() -> None:
    """The table in docs/runtime.md is the one the settings render."""
    assert config.reference() in DOCUMENT.read_text(), (
        "run: python -c 'from supportfleet_runtime import config; print(config.reference())'"
    )


def test_the_command_exits_with_2_and_lists_every_problem() -> None:
    """A wrong configuration ends the process with 2 before anything starts."""
    done = subprocess.run(
        [sys.executable, "-m", "supportfleet_runtime", "serve"],
        env={"PATH": os.environ["PATH"], "API_PORT": "x", "DB_POOL": "x"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "API_PORT" in done.stderr
    assert "DB_POOL" in done.stderr
    assert "Traceback" not in done.stderr
