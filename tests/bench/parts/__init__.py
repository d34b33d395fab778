"""The parts of the comparison: each measures, and each says how its records are shown."""
