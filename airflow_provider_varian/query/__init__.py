"""Queries: the query object, windows in clinic time, matching by PS3.4, and what a peer's answers are worth."""
