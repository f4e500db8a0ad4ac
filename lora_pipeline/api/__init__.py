"""The HTTP interface: each route turns a request into one operation, and the result into an answer."""
