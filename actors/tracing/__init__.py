"""Traces of steps, for OpenTelemetry: loaded where a run asks for them, and only there."""
