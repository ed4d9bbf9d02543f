"""The samples a rank trains on, built from the `data:` section, and the order they come in."""
