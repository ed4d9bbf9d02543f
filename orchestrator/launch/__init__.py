"""Where a plan runs: this process, a local Ray, a cluster. Ray is imported here alone."""
