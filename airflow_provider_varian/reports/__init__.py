"""Manifests told to people and to programs: found, read, told, and held against what is there."""
