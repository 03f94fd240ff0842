"""agentrun: a stateful runtime for AI agents."""

__version__ = "0.1.0"

GC_THRESHOLD = (50_000, 20, 50)
"""For ``gc.set_threshold`` of our processes. Modules and classes stay, and reference counts free most of the rest. With
Python's own threshold of 700 objects, the collector looks through all of them hundreds of times at each start.
"""
