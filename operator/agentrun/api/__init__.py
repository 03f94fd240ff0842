"""The resource types: what a person writes, and the small values that everything else speaks of."""
