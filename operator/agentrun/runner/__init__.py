"""One step as a process: the agent loop and the tools. Imports neither kopf nor kubernetes.

In reading order: ``process`` (the entry point), ``attempt`` (open the journal, do the step, commit each thing before
it is acted on), ``agent`` and ``tool_step``, ``calls`` (the
rules before a call, and the call), ``http_tool``; ``models`` and ``endpoint`` (a model's API and its quirks).
"""
