"""Rollouts on the command line: what people do to them, and what they see of them.

``api`` talks to the API server through kubectl's proxy, so that whatever logs kubectl in logs this in as well. What
it answers becomes values (``actions``, ``view``, ``plan``) by pure functions, with the time as an argument; ``tree``
and ``text`` turn those into what people read, and the modules that end in ``_commands`` are what they type.

What a rollout does is the operator's business. This part knows its contract alone: the fields of ``SupportAgent``, and
three annotations.
"""
