"""Who may ask for what: keys, what they reach, signed links, and requests that may be repeated."""
