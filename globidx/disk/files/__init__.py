"""What every file needs: atomic replacement, locks, names, a bound on open ones."""
