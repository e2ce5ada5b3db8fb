"""What the command shows on a terminal, or writes in its place."""
