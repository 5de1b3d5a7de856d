"""``gpo init``: from a data file or data set to a configuration that a person reads and corrects."""
