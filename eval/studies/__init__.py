"""Experiments that were run once and written down in docs/experiments; each is a module that can be run again."""
