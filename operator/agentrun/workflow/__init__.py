"""From documents to a program: a workflow is checked whole, compiled, and pinned into a run's manifest.

In reading order: ``program`` (graph, steps, tools, schemas: everything that ``plan`` and ``runner`` ask a workflow),
``step_kinds`` and ``tool_kinds`` (a row for each kind of step, and of tool), ``http`` and ``json_schema`` (two parts
of a program), ``lint`` (what will surely or probably fail, told before the run), ``pinning`` (documents and inputs
become ``run.json``). Nothing here has I/O.
"""
