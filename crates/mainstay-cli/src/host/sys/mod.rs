//! Processes and their trees, one module per operating system with the same names in each.
