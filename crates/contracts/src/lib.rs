//! What services say to each other: gRPC (from `proto/`), topic names, the payloads of the purchase saga.
//!
//! **Architecture Invariant:** shapes only. No behaviour, no I/O; a service that changes a shape here changes a
//! contract with every other version of every other service that is running.

pub mod purchase;
pub mod topics;

/// `auth.AuthService`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/auth.proto, documented there"
)]
pub mod auth {
    tonic::include_proto!("auth");
}

/// `product.ProductService`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/product.proto, documented there"
)]
pub mod product {
    tonic::include_proto!("product");
}

/// Both services' descriptors, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("contracts");
