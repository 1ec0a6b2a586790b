"""Callbacks: telling whoever asked that a task has ended, by webhook or e-mail.

``addresses``, ``settings``  what may be called: pure
``outbox``                   what is to be called, and by whom: rows under leases
``webhook``, ``mail``        how: one attempt, which succeeds or raises ``DeliveryError``
``caller``                   the worker that joins them
"""
