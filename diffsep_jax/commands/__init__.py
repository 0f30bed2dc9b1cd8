"""The subcommands of `diffsep`."""
