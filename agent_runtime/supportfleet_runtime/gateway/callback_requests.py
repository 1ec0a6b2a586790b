"""What a message may ask to be told by: ``callback``, checked before the message is accepted.

Who asks for what isn't configured is told so, since a callback that never comes looks like a reply that never came. A
customer's own token doesn't carry so far: who may have the agent write to any address is the shop's own backend.
"""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Self

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, model_validator

from supportfleet_runtime.callbacks.addresses import MAX_URL, url_problem
from supportfleet_runtime.callbacks.settings import MAX_ADDRESS, CallbackSettings, Kind, is_mail_address
from supportfleet_runtime.conversations.records import Callback
from supportfleet_runtime.gateway.authentication import ANYONE, PRINCIPAL
from supportfleet_runtime.gateway.problems import FieldError, HttpProblemError
from supportfleet_runtime.storage.ids import new_id

REMEDIES = {
    Kind.WEBHOOK: "webhooks are not configured: set WEBHOOK_SECRET",
    Kind.EMAIL: "e-mail is not configured: set SMTP_URL and EMAIL_FROM",
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class WebhookRequest(_Part):
    """A webhook."""

    url: Annotated[str, Field(min_length=1, max_length=MAX_URL)]


class EmailRequest(_Part):
    """An e-mail."""

    address: Annotated[str, Field(min_length=3, max_length=MAX_ADDRESS)]


class CallbackRequest(_Part):
    """How to tell that the task has ended: one of these."""

    webhook: WebhookRequest | None = None
    email: EmailRequest | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.webhook is None) == (self.email is None):
            raise ValueError("name a webhook or an e-mail")
        return self


def read_callback(
    request: web.Request, asked: CallbackRequest | None, settings: CallbackSettings, now: datetime
) -> Callback | None:
    """The callback that is asked for, or a problem that says why there can't be one."""
    if asked is None:
        return None
    if request.get(PRINCIPAL, ANYONE).customer is not None:
        errors = [FieldError("#/callback", "only an API key's owner may ask for one")]
        detail = "a customer's token can't ask for a callback"
        raise HttpProblemError(HTTPStatus.FORBIDDEN, "callback-not-allowed", detail, errors)
    kind, target, member = _chosen(asked)
    problem = None if kind in settings.kinds else REMEDIES[kind]
    if problem:
        raise _refused(f"#/callback/{kind}", problem)
    problem = _target_problem(kind, target, settings)
    if problem:
        raise _refused(f"#/callback/{kind}/{member}", problem)
    return Callback(new_id("cb", now), kind.value, target)


def _chosen(asked: CallbackRequest) -> tuple[Kind, str, str]:
    if asked.webhook is not None:
        return Kind.WEBHOOK, asked.webhook.url, "url"
    return Kind.EMAIL, asked.email.address if asked.email else "", "address"


def _target_problem(kind: Kind, target: str, settings: CallbackSettings) -> str | None:
    if kind is Kind.WEBHOOK:
        return url_problem(target, settings.allowed)
    return None if is_mail_address(target) else "it is no plain e-mail address"


def _refused(pointer: str, detail: str) -> HttpProblemError:
    return HttpProblemError(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "invalid-callback",
        "there can't be such a callback",
        [FieldError(pointer, detail)],
    )
