"""The command line: one small file a command, which imports its library part when the command runs."""
