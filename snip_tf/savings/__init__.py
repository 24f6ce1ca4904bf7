"""Turns zeros into smaller files and faster inference."""
