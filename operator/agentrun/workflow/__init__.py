"""Checks a workflow, compiles it to a program, and pins it into a run's manifest.

In reading order: ``program`` (graph, steps, tools, schemas: everything that ``plan`` and ``runner`` ask a workflow),
``step_kinds`` and ``tool_kinds`` (a row for each kind of step, and of tool), ``http`` and ``json_schema`` (two parts
of a program), ``lint`` (reports before the run what will surely or probably fail), ``pinning`` (makes ``run.json``
from documents and inputs). This package does no I/O.
"""
