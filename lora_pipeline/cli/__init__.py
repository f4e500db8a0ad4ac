"""The command line: each command turns its arguments into one operation, and the result into a table or JSON."""
