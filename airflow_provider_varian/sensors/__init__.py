"""Sensors: tasks that wait for a peer, or for what it holds or sends."""
