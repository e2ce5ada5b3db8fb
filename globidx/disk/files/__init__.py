"""What every file needs: atomic replacement, locks, names, and open files that stay within a bound."""
