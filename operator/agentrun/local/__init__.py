"""The driver for one machine: processes in place of pods, a folder or a bucket as the store.

``driver`` plans and carries out plans in a loop, ``processes`` starts attempts, ``room`` says when to try to start one
again, ``store_calls`` waits for a store that is out of reach, ``clock_jumps`` finds out that somebody set the clock,
``lease`` makes sure that only one driver drives a run, ``user`` names the person at this machine.
"""
