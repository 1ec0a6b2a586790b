"""The alert rules that come with the agent, by Prometheus's own ``promtool``: they parse, and fire when they should."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

RULES = Path(__file__).parents[2] / "manifests" / "alerts" / "agent.rules.yaml"
SECONDS = 60
AGENT = '{namespace="shop",job="supportagents"}'
TRUE, FALSE = "1+0x60", "0+0x60"

# What makes each alert fire: series at one sample a minute, and when they are looked at.
FIRING = {
    "AgentErrorRate": (
        {'agent_request_total{%s,status="503"}': "0+1x60", 'agent_request_total{%s,status="200"}': "0+9x60"},
        "15m",
    ),
    "AgentLatency": (
        {
            'agent_response_latency_seconds_bucket{%s,le="10"}': "0+9x60",
            'agent_response_latency_seconds_bucket{%s,le="20"}': "0+10x60",
            'agent_response_latency_seconds_bucket{%s,le="+Inf"}': "0+10x60",
        },
        "20m",
    ),
    "AgentQueueGrowing": ({"agent_queue_depth{%s}": "600+0x60"}, "15m"),
    "AgentQueueDepth": ({"agent_queue_depth{%s}": "1001+0x60"}, "10m"),
    "AgentPodDown": ({"up{%s}": FALSE}, "10m"),
    "AgentDependencyUnhealthy": ({'agent_dependency_healthy{%s,dependency="claude"}': FALSE}, "5m"),
    "AgentBreakerOpen": ({'agent_breaker_state{%s,dependency="model"}': "2 1 2 2 1 2 2 1 2 2 1 2 2 1 2"}, "12m"),
    "AgentFallbacks": (
        {'agent_fallback_total{%s,level="4"}': "0+3x60", 'agent_fallback_total{%s,level="0"}': "0+7x60"},
        "30m",
    ),
    "AgentEscalations": (
        {"escalation_to_human_total{%s}": "0+4x90", 'agent_request_total{%s,status="200"}': "0+10x90"},
        "80m",
    ),
    "AgentDeadLetters": ({'agent_task_total{%s,outcome="dead"}': "0x5 1x20"}, "8m"),
    "AgentEffectAmbiguous": ({"agent_effect_ambiguous_total{%s}": "0x5 1x20"}, "8m"),
    "AgentCallbacksFailing": ({'agent_callback_total{%s,kind="webhook",outcome="failed"}': "0x5 1x20"}, "8m"),
    "AgentModelReloadFailed": ({'agent_model_reload_failed_info{%s,version="2",reason="LoadFailed"}': TRUE}, "15m"),
}
# An agent as it should be: nothing fires.
WELL = {
    'agent_request_total{%s,status="200"}': "0+100x120",
    'agent_request_total{%s,status="401"}': "0+900x120",
    'agent_request_total{%s,status="503"}': "0+1x120",
    'agent_response_latency_seconds_bucket{%s,le="1"}': "0+100x120",
    'agent_response_latency_seconds_bucket{%s,le="+Inf"}': "0+100x120",
    "agent_queue_depth{%s}": "90+0x120",
    "up{%s}": "1+0x120",
    'agent_dependency_healthy{%s,dependency="claude"}': "1+0x120",
    'agent_breaker_state{%s,dependency="model"}': "0x30 2 0x89",
    'agent_fallback_total{%s,level="0"}': "0+99x120",
    'agent_fallback_total{%s,level="4"}': "0+1x120",
    "escalation_to_human_total{%s}": "0+10x120",
    'agent_task_total{%s,outcome="dead"}': "3+0x120",
}  # fmt: skip


@pytest.fixture(scope="module")
def promtool(unavailable: Any) -> str:
    """The program."""
    return shutil.which("promtool") or unavailable("promtool", "install Debian's package prometheus")


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def series(values: dict[str, str]) -> list[dict[str, str]]:
    labels = AGENT.strip("{}")
    return [{"series": name % labels, "values": value} for name, value in values.items()]


def test_prometheus_takes_the_rules(promtool: str) -> None:
    """They are a rule file as Prometheus reads it."""
    run(promtool, "check", "rules", RULES)


def test_each_fires_and_none_without_reason(promtool: str, tmp_path: Path) -> None:
    """Every alert has figures that make it fire, with its severity; an agent that is well makes none fire."""
    alerts = {one["alert"]: one for group in yaml.safe_load(RULES.read_text())["groups"] for one in group["rules"]}
    assert FIRING.keys() == alerts.keys()
    tests = [
        {
            "interval": "1m",
            "input_series": series(values),
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing",'
                    f'severity="{alerts[name]["labels"]["severity"]}"}})',
                    "eval_time": at,
                    "exp_samples": [{"labels": "{}", "value": 1}],
                }
            ],
        }
        for name, (values, at) in FIRING.items()
    ]
    calm: list[dict[str, Any]] = [
        {"expr": "count(ALERTS)", "eval_time": at, "exp_samples": []} for at in ("20m", "60m", "110m")
    ]
    tests.append({"interval": "1m", "input_series": series(WELL), "promql_expr_test": calm})
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    run(promtool, "test", "rules", file)
