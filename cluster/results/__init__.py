"""The results of a run: its record, its files, and reading them back."""
