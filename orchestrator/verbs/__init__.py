"""What the verbs of the command line do: a module a verb, or a few that belong together."""
