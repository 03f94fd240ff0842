"""The backend for a cluster: what people say to AgentRuns, and what is read of them, through its API server."""
