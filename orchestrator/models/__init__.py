"""The networks a rank trains, built from the `model:` section."""
