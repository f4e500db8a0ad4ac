"""Lineage: from any id, what a thing was made from, what was made of it, and where that was live.

Reads what the other areas wrote and changes nothing; none of them imports it.
"""
