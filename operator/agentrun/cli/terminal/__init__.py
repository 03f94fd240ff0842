"""Output to a terminal or a pipe: objects, tables, colours, and the live view of a run."""
