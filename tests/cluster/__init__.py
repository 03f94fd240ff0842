"""A real Kubernetes on one machine, for tests and for a person: see README.md beside this file."""
