//! The way of a line from a pipe to a file.
