//! Every error code that a client can see has a page.
