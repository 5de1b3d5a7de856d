"""What people see while a run works: progress, tables and logs."""
