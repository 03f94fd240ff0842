"""The interface between a starter of attempts and a step's process: neither knows more about the other.

``adapters`` (a pod) and ``local`` (a child process) start an attempt; ``runner`` runs in its process. In reading order:
``spec`` (the attempt that the process is to run), ``environment`` (the variables that carry it), ``exit_codes``.
"""
