"""For tests of this project and of third-party strategies: deterministic fakes and contract test classes."""
