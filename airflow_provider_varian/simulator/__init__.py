"""A synthetic ARIA behind a DB Daemon: the ground truth of the tests, and a room to rehearse in."""
