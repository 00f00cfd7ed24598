//! Dead letters port.
