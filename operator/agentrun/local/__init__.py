"""The driver for one machine: processes in place of pods, a folder or a bucket as the store."""
