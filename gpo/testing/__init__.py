"""For tests of this project and of strategies written elsewhere: deterministic fakes and contract test classes."""
