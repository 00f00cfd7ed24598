//! In-process twins of broker, cache, filter and lock: the embedded profile, and the tests.
