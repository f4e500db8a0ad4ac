"""Inventory: what lies elsewhere and what it is worth, in buckets, in old files, in old tables, and twice over.

Pure rules (what unifies, which value survives, what is wrong with an old row) stand beside the operations that
read and write. Serving and activation are not decided here.
"""
