//! Children that misbehave on purpose, and fixtures.
