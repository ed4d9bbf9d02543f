"""Plans on Ray: one of the run's own on this machine, or a cluster that somebody else runs."""
