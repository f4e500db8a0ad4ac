"""Telling the application what happened: owed with the change, signed, sent, and sent again until it is taken."""
