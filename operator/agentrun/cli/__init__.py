"""The command line, also installed as kubectl-agentrun."""
