"""The backend for a cluster: reads AgentRuns and gives them commands through the API server."""
