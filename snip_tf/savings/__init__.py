"""What zeros save: smaller files and faster calls."""
