"""A job on its way to a Ray cluster, through Ray's Jobs API: checked, packed, sent, followed."""
