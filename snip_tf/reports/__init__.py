"""What was pruned and what that saves, as text, pages and pictures."""
