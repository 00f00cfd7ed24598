//! Cache, filter and lock ports.
