"""The provider of an agent without a key: it says what it is, so that nobody takes it for a language model."""

from __future__ import annotations

from supportfleet_runtime.agent.draft import Draft
from supportfleet_runtime.agent.providers.port import Completion, Prompt

MODEL = "scripted"
REPLY = (
    "I'm a scripted stand-in: no language model is connected to this agent yet. I can help with order status, refunds,"
    " address changes, password resets and your order history; write 'human' to reach a colleague."
)


class ScriptedProvider:
    """Always says the same."""

    async def complete(self, prompt: Prompt, *, within: float, draft: Draft | None = None) -> Completion:  # noqa: ARG002 - it always says the same
        """The script, all at once."""
        return Completion(text=REPLY, model=MODEL)

    async def close(self) -> None:
        """Nothing is open."""
