"""The driver for one machine: processes in place of pods, a folder or a bucket as the store.

``driver`` plans and acts in a loop, ``processes`` starts attempts, ``lease`` sees to it that one driver drives a run.
"""
