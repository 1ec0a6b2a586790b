"""``supportfleet chat``: talk to an agent through its Service, from wherever kubectl works."""

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
import click
from rich.console import Console
from rich.markup import escape

from supportfleet.errors import SupportfleetError
from supportfleet.kubectl import Kubectl

ANSWER_SECONDS = 40.0
POLL_SECONDS = 1.0
POLLS = 60


class ChatError(SupportfleetError):
    """The agent could not be reached, or refused the message."""


@dataclass
class Conversation:
    """One customer's conversation with one agent; remembers its id from answer to answer."""

    proxy: str
    namespace: str
    agent: str
    customer: str
    id: str | None = None

    def _url(self, path: str) -> str:
        return f"{self.proxy}/api/v1/namespaces/{quote(self.namespace)}/services/{quote(self.agent)}:http/proxy{path}"

    async def say(self, text: str) -> dict[str, Any]:
        """The agent's answer to one message.

        Raises:
            ChatError: It did not answer, or with an error.
        """
        body = {"customer_id": self.customer, "text": text, **({"conversation_id": self.id} if self.id else {})}
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            status, answer = await self._send(session, "POST", "/v1/messages", body)
            for _ in range(POLLS):
                if status != 202:  # noqa: PLR2004 - HTTP's own number for "accepted"
                    break
                await asyncio.sleep(POLL_SECONDS)
                _, task = await self._send(session, "GET", f"/v1/tasks/{answer['task_id']}", None)
                if "reply" in task:
                    answer, status = task, 200
        if "reply" not in answer:
            raise ChatError(f"{self.agent} has accepted the message but not answered it yet")
        self.id = answer["conversation_id"]
        return answer

    async def _send(
        self, session: aiohttp.ClientSession, method: str, path: str, body: dict[str, Any] | None
    ) -> tuple[int, dict[str, Any]]:
        try:
            async with session.request(method, self._url(path), json=body) as response:
                answer = await response.json(content_type=None)
                status = response.status
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ChatError(f"{self.agent} did not answer: {error or type(error).__name__}") from error
        if status >= 400:  # noqa: PLR2004 - HTTP's own boundary of errors
            said = answer.get("detail") or answer.get("message") or answer.get("title") or answer
            raise ChatError(f"{self.agent} answered {status}: {said}", remedy=_remedy(status, self))
        return status, answer


def _remedy(status: int, conversation: Conversation) -> str:
    if status in {404, 503}:
        return f"See 'kubectl -n {conversation.namespace} get supportagents'"
    return ""


def show(console: Console, text: str, answer: dict[str, Any]) -> None:
    """Print a message and what was answered, with where the answer came from."""
    console.print("[bold cyan]customer[/]", escape(text), highlight=False)
    _show_reply(console, answer)
    facts = [f"{answer['intent']} ({answer['confidence']:.0%})", answer.get("model") or answer["source"]]
    if "latency_ms" in answer:  # a task's answer has none: it took as long as it took
        facts.append(f"{answer['latency_ms']:.0f} ms")
    console.print(f"         [dim]{escape(', '.join(facts))}[/]", highlight=False)


def _show_reply(console: Console, answer: dict[str, Any]) -> None:
    """Print a reply to the letter, whatever looks like markup in it."""
    console.print("[bold green]agent[/]   ", escape(answer["reply"]), highlight=False)


@click.command()
@click.argument("agent")
@click.argument("text", required=False)
@click.option("-n", "--namespace", default="default", show_default=True, help="The agent's namespace.")
@click.option("--customer", default="cust-1001", show_default=True, help="Who is asking.")
def chat(agent: str, text: str | None, namespace: str, customer: str) -> None:
    """Ask AGENT one message, or talk with it until an empty line."""
    console = Console()
    with Kubectl().proxy() as proxy:
        conversation = Conversation(proxy, namespace, agent, customer)
        while message := (text or console.input("[bold cyan]customer[/] ").strip()):
            answer = asyncio.run(conversation.say(message))
            if text:
                show(console, message, answer)
                return
            _show_reply(console, answer)
