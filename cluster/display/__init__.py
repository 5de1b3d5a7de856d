"""How a command shows its progress, and how processes log."""
