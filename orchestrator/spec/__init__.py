"""What the user wrote: the job file, read, checked and frozen. Imports nothing heavy."""
