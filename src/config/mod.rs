//! From the file to checked types: all problems at once, each with its place and a hint.
