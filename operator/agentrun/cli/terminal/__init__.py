"""What a terminal or a pipe gets: objects, tables, colours, and the live view of a run."""
