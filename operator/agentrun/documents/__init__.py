"""A user's file, and an object of an API server, as checked resources; what is wrong with one, in words and by line.

In reading order: ``document`` (a file becomes AgentRuns and AgentWorkflows), ``yaml_reader`` and ``yaml_scalars`` (YAML
as plain values that know their lines), ``problems`` (pydantic's errors in this project's words), ``agent_command``.
"""
