//! Connections to a collector, encrypted where its address says `https`: whom to believe is what the machine trusts, or the
//! authorities in a file of ours.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::settings::{Protocol, Settings};

/// What connects, to either kind of address.
pub(super) type Connector = HttpsConnector<HttpConnector>;

/// Makes one; certificates are read now and not again.
///
/// # Errors
/// When there is nobody to believe, or the file is none of certificates.
pub(super) fn connector(settings: &Settings) -> anyhow::Result<Connector> {
    // Where nothing is encrypted nobody has to be believed: a machine may have no certificates at all.
    let roots = match settings.endpoint.starts_with("https://") {
        true => roots(settings.certificate.as_deref())?,
        false => RootCertStore::empty(),
    };
    // Named, because a process may hold more than one of them.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS to a collector cannot be set up")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    // A batch is one write that is to leave at once.
    tcp.set_nodelay(true);
    let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
    Ok(match settings.protocol {
        Protocol::Grpc => builder.enable_http2().wrap_connector(tcp),
        Protocol::Http => builder.enable_http1().wrap_connector(tcp),
    })
}

/// Whom to believe.
fn roots(file: Option<&str>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(path) => {
            let wrong = || format!("OTEL_EXPORTER_OTLP_CERTIFICATE: {path} cannot be read as certificates in PEM");
            for certificate in CertificateDer::pem_file_iter(path).with_context(wrong)? {
                roots.add(certificate.with_context(wrong)?).with_context(wrong)?;
            }
            ensure!(!roots.is_empty(), "OTEL_EXPORTER_OTLP_CERTIFICATE: there is no certificate in {path}");
        }
        None => {
            // One among many that nobody can read is no reason not to believe the others.
            let found = rustls_native_certs::load_native_certs();
            let wrong = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
            roots.add_parsable_certificates(found.certs);
            ensure!(
                !roots.is_empty(),
                "OTEL_EXPORTER_OTLP_ENDPOINT is https, and this machine trusts nobody{wrong}: install its certificates \
                 (ca-certificates), or name a file of them in OTEL_EXPORTER_OTLP_CERTIFICATE"
            );
        }
    }
    Ok(roots)
}
