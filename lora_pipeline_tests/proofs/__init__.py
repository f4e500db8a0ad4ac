"""Adversarial proofs: every paid training is started once, never forgotten, and reaches its true end."""
