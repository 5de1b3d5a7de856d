"""Measurements of this project, and the simulated endpoint that they run against."""
