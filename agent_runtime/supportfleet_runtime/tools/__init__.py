"""Tools: what the language model may look up and have done, within authority, limits and a ledger.

::

    agent ── ToolSession ──> Tools (toolbox.py) ── backend ──┬──> ToolDesk (desk.py), in process
             (authority)     │ checks the arguments          │
                             │ ledger: key before the call   └──> HttpTools (client.py) ──> server.py ──> ToolDesk
                             └ result after it                     timeouts, breaker          the role ``tools``
"""
