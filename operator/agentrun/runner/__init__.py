"""One step as a process: the agent loop and the tools. Imports neither kopf nor kubernetes.

In reading order: ``process`` (the entry point), ``attempt`` (open the journal, do the step, commit each thing before
it is acted on), ``work`` (by the kind of the step), ``agent`` and ``tool_step``, ``gates`` (the rules before a call),
``calls``, ``open_tool`` (by the kind of the tool), ``http_tool``; ``models`` and ``endpoint`` (a model's API and its
quirks).
"""
