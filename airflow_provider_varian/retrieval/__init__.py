"""Retrieval: what should come, what came, and where it is filed, accounted for instance by instance."""
