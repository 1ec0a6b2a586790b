"""Alert rules: a Prometheus rule file, or a PrometheusRule of the Prometheus Operator. Reading is all that is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import yaml

from supportfleet_runtime.checklist.outcome import NotCheckableError
from supportfleet_runtime.checklist.subject import Subject

MAX_BYTES: Final = 4 * 1024 * 1024
HOLDS: Final = "a Prometheus rule file or a PrometheusRule"


@dataclass(frozen=True)
class Alert:
    """A rule that alerts."""

    name: str
    expression: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]

    @property
    def runbook(self) -> str:
        """The file of its runbook: what ``runbook_url`` ends in, else its name."""
        given = PurePosixPath(self.annotations.get("runbook_url", "").split("#")[0].split("?")[0]).name
        return f"{(given or self.name).removesuffix('.md')}.md"


def alerts_of(subject: Subject) -> list[Alert]:
    """The alerts of ALERT_RULES."""
    path = subject.file("ALERT_RULES", subject.settings.alert_rules, HOLDS)
    return parse(read(path, "ALERT_RULES"), path.name)


def read(path: Path, name: str) -> str:
    """A text file that a setting names."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES).decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise NotCheckableError(f"{name}: {path} can't be read: {reason}") from error


def parse(content: str, name: str) -> list[Alert]:
    """The alerts that a file's content holds. Pure."""
    document = load_yaml(content, name)
    spec = document.get("spec", document) if isinstance(document, dict) else None
    groups = spec.get("groups") if isinstance(spec, dict) else None
    if not isinstance(groups, list):
        raise NotCheckableError(f"{name} holds no 'groups': it must be {HOLDS}")
    rules = [rule for group in groups if isinstance(group, dict) for rule in group.get("rules") or ()]
    return [_alert(rule) for rule in rules if isinstance(rule, dict) and rule.get("alert")]


def load_yaml(content: str, name: str) -> Any:
    """What YAML, or JSON, says."""
    try:
        return yaml.safe_load(content)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise NotCheckableError(f"{name} is no YAML{where}") from error


def _alert(rule: Mapping[str, Any]) -> Alert:
    labels, annotations = (
        {str(key): str(value) for key, value in (rule.get(part) or {}).items()} for part in ("labels", "annotations")
    )
    return Alert(str(rule["alert"]), str(rule.get("expr", "")), labels, annotations)
