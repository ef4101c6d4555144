"""The command line of tffl: one file per subcommand, no logic of its own."""
