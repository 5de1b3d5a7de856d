"""One run: its searches, its folder and its loop."""
