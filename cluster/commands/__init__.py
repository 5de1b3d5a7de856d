"""What each command of ``gpo`` does; ``cluster.cli`` holds what a user types.

Heavy imports wait inside the functions: ``gpo --help`` answers at once, and Ray is loaded only once its environment is
prepared. Each function returns the exit code, and raises ``ConfigError`` for what the user can mend.
"""
