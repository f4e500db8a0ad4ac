"""Erasing a user with a receipt, and deleting photographs that are due.

`plan.py` says what a plan holds and which shared weights survive; `belongings.py` and `planning.py` read it, `journal.py` begins,
`carrying_out.py` does the steps and takes up what was left, `receipts.py` answers afterwards. `names.py` recognises
whom nobody can read any more: intake, imports, inventory and look-ups ask it.
"""
