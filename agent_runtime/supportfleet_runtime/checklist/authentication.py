"""Authentication: the running agent refuses whoever has no key, or a wrong one, and takes the right one.

The requests are ones that would change nothing if they were let in: unknown ids, an empty message.
"""

from __future__ import annotations

from typing import Any, Final

from supportfleet_runtime.checklist.outcome import Outcome, judged
from supportfleet_runtime.checklist.subject import NOBODYS_ID, NOBODYS_TASK, REFUSALS, Subject

REQUESTS: Final[tuple[tuple[str, str, Any], ...]] = (
    ("POST", "/v1/messages", {}),
    ("GET", NOBODYS_TASK, None),
    ("GET", f"/v1/conversations/conv_{NOBODYS_ID}", None),
    ("GET", "/v1/health", None),
)
WRONG_KEY: Final = {"X-API-Key": "wrong-key-of-the-checklist", "Authorization": "Bearer wrong-key-of-the-checklist"}


async def check(subject: Subject) -> Outcome:
    """Try every endpoint that is behind the key."""
    wrong = []
    for method, path, body in REQUESTS:
        for what, headers in (("no key", {}), ("a wrong key", WRONG_KEY)):
            answer = await subject.ask(method, path, headers, body)
            if answer.status not in REFUSALS:
                wrong.append(f"{method} {path} answers HTTP {answer.status} to {what}")
    known = "; with a right one it was not tried (--api-key-file)"
    if subject.key:
        answer = await subject.ask("GET", NOBODYS_TASK, {"X-API-Key": subject.key})
        known = " and takes the right one"
        if answer.status in REFUSALS:
            wrong.append(f"the agent refuses the right key (HTTP {answer.status})")
    return judged(wrong, f"the agent refuses requests with no key and with a wrong one{known}")
