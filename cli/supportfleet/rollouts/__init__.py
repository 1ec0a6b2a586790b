"""Rollouts on the command line: what people do to them, and what they see of them.

``api`` talks to the API server through kubectl's proxy, so that whatever logs kubectl in logs this in as well. What
it answers becomes values (``objects``, ``view``, ``plan``) by pure functions, with the time as an argument;
``tree`` and ``text`` turn those into what people read, and ``commands`` is what they type.

What a rollout does is the operator's business. This part knows its contract alone: the fields of ``SupportAgent``, and
three annotations.
"""
