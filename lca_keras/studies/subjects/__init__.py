"""The experiments proper, one a file; imports the rest of `studies`."""
