"""Workflows that run as they stand, and the stand-ins for a model and a business that they run against."""
