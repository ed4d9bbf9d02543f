"""A comparison: strategies taking turns in groups of ranks, from its plans to its report."""
