"""The charts: rendered by the real helm, and their policies and roles held against a real API server."""
