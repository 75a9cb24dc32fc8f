"""What evaluations write and reports read: columns, folders, files. Needs no torch."""
