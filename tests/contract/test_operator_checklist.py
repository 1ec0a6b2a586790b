"""What the operator makes of the checklist is what the runtime's command knows: checks, options, exit codes, words."""

from __future__ import annotations

import argparse
from typing import Any, get_args

import pytest

from supportfleet_operator.api import parse
from supportfleet_operator.api.checklist import CheckName
from supportfleet_operator.reconcile import checklists
from supportfleet_operator.resources import checklist_job
from supportfleet_operator.resources.checklist import DOCUMENTS, FAILED
from supportfleet_runtime.checklist import command
from supportfleet_runtime.checklist.outcome import EXIT_CODES, Verdict
from supportfleet_runtime.checklist.runner import CHECKS
from supportfleet_runtime.config import Settings


def arguments(**checklist: Any) -> list[str]:
    """The command line of the Job."""
    agent = parse(
        {
            "apiVersion": "supportfleet.dev/v1alpha1",
            "kind": "SupportAgent",
            "metadata": {"name": "desk", "namespace": "shop", "uid": "u-1"},
            "spec": {"template": {"image": "agent:1"}, "rollout": {"checklist": checklist}},
        }
    )
    job = checklist_job(agent, "r0123456", "2026-11-21T12:00:00+00:00")
    assert job is not None
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"][0] == "checklist"
    return [str(one) for one in container["args"][1:]]


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser()
    command.add_arguments(found)
    return found


def test_the_checks_that_can_be_skipped_are_all_there_are() -> None:
    """The field's values are the command's checks."""
    assert set(get_args(CheckName)) == set(CHECKS)


@pytest.mark.parametrize("skip", [[], ["models", "on-call"]])
def test_the_command_takes_the_jobs_options(skip: list[str]) -> None:
    """Left out are those that the spec names, and those that need what isn't there."""
    parsed = parser().parse_args(arguments(skip=skip))
    assert parsed.url == "http://desk-r0123456:80"
    assert set(parsed.skip) == {*skip, "alert-rules", "runbooks", "on-call", "queue"}


def test_a_key_is_given_by_an_option_that_there_is() -> None:
    """Its file is only where the Secret is mounted."""
    assert "--api-key-file" in parser().format_help()
    assert "--api-key-file" in arguments(apiKeySecretRef={"name": "callers"})


def test_documents_are_settings() -> None:
    """Each variable is one that the runtime reads."""
    assert {name.lower() for name, _ in DOCUMENTS} <= Settings.model_fields.keys()


def test_a_verdict_is_understood() -> None:
    """A failed check ends the Job, one that could not be made doesn't; the last word is one that may be repeated."""
    assert EXIT_CODES == {Verdict.PASS: 0, Verdict.FAIL: FAILED, Verdict.ERROR: 2}
    assert set(command.REASONS.values()) == checklists.REASONS
