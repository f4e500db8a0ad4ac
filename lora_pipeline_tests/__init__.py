"""Tests, by area. What several areas need stands in `fixtures/`."""
