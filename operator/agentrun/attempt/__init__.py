"""What a starter and a step's process agree on: neither knows more of the other.

``adapters`` (a pod) and ``local`` (a child process) start an attempt; ``runner`` is what then runs. Read ``spec`` (what
the process is told), ``environment`` (how it is told), ``exit_codes`` (what it says when it ends).
"""
