"""Resumable work in numbered parts: many prompts into one file, on this machine or a cluster."""
