"""What a daemon can serve, and the search in it: a synthetic clinic, or a folder of anybody's files."""
