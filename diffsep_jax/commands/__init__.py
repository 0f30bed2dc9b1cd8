"""The subcommands of `diffsep`, one in a file."""
