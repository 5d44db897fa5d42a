"""Receiving: the spool in which objects become durable, and the receiver inside a task that fills it."""
