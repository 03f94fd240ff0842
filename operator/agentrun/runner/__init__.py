"""One step as a process: the agent loop and the tools. Imports neither kopf nor kubernetes."""
