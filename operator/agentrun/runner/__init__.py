"""The process of one step: the agent loop and the tools. This package imports neither kopf nor kubernetes.

In reading order: ``process`` (the entry point), ``attempt`` (opens the journal, does the step, commits everything
before it acts on it), ``step_input`` (what the step is asked), ``mailbox`` (what reaches an attempt while it works),
``dispatch`` (dispatches on the step's kind), ``agent`` and ``tool_step``, ``gates`` (the rules before a call),
``tool_calls``, ``open_tool`` (dispatches on the tool's kind), ``http_tool``; ``models`` and ``endpoint`` (a model's API
and its quirks); ``retries`` (the short tries within one call: a further attempt is up to ``plan.retry``).
"""
