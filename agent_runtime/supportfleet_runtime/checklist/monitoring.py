"""Monitoring: the running agent's metrics can be scraped, and all that are documented are there."""

from __future__ import annotations

from http import HTTPStatus

from prometheus_client.parser import text_string_to_metric_families

from supportfleet_runtime.checklist.outcome import Outcome, failed, judged
from supportfleet_runtime.checklist.subject import Subject
from supportfleet_runtime.observability.metrics import described


async def check(subject: Subject) -> Outcome:
    """Scrape as Prometheus does: without a key."""
    answer = await subject.ask("GET", "/metrics")
    if answer.status != HTTPStatus.OK:
        return failed(f"/metrics answers with HTTP {answer.status}")
    try:
        families = list(text_string_to_metric_families(answer.text))
    except ValueError:
        return failed("/metrics is not in Prometheus's text format")
    found = {family.name for family in families}
    missing = [one.name for one in described() if one.name.removesuffix("_total") not in found]
    samples = sum(len(family.samples) for family in families)
    return judged(
        [f"{name} is missing" for name in missing], f"/metrics has {samples} samples, of all that is documented"
    )
