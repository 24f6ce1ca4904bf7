"""What was pruned and what it saves, in lines, pages and pictures."""
