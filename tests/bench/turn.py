def measure(parts):
    return iter(())
