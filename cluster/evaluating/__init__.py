"""What ``gpo evaluate``, ``gpo score`` and ``gpo plan`` compute."""
